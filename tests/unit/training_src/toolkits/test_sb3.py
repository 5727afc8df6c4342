from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from training_src.benchmark.metrics import summarise
from training_src.benchmark.rollout import TUNING_SEEDS, ActionController
from training_src.benchmark.rollout import run as rollout
from training_src.errors import UserError
from training_src.presets import Preset, load_preset, resolve
from training_src.presets.schema import MAX_SEED
from training_src.toolkits import toolkit
from training_src.toolkits.sb3 import KEEP_MARGINS, Sb3Run, make_env
from training_src.training_log import TrainingLog

TINY = {
    "preset": "smoke",
    "n_envs": "4",
    "n_steps": "8",
    "batch_size": "32",
    "total_steps": "320",
    "evaluation_interval_steps": "64",
    "checkpoint_interval_steps": "96",
    "evaluation_episodes": "1",
}


def tiny(**changes: object) -> Preset:
    if "environment_id" not in changes:
        changes["episode_steps"] = 50
    return resolve(load_preset("smoke"), TINY | {key: str(value) for key, value in changes.items()})


def make_run(folder: Path, preset: Preset | None = None, stop: Callable[[], bool] = lambda: False) -> Sb3Run:
    folder.mkdir(exist_ok=True)
    return Sb3Run(preset or tiny(), folder, TrainingLog(folder), stop)


def weights(run: Sb3Run) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in run.model.policy.state_dict().items()}


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def checkpoints(folder: Path) -> list[int]:
    return sorted(int(path.stem.removeprefix("checkpoint-")) for path in folder.glob("*.pt"))


def test_a_last_rollout_beyond_the_budget_does_not_make_the_learning_rate_negative(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", tiny(total_steps=40))
    rates = []
    train = run.model.train

    def note() -> None:
        train()
        rates.append(run.model.policy.optimizer.param_groups[0]["lr"])

    run.model.train = note  # type: ignore[method-assign]
    run.learn()
    assert run.model.num_timesteps == 64
    assert rates == [pytest.approx(0.001 * (1 - 32 / 40)), 0.0]


def test_training_seeds_stay_below_those_of_tuning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []
    monkeypatch.setattr("stable_baselines3.common.vec_env.VecNormalize.seed", lambda _, seed: seeds.append(seed))
    for seed in (0, 1, MAX_SEED):
        make_run(tmp_path / str(seed), tiny(seed=seed))
    # PPO seeds the environment first; the run has the last word.
    assert [seeds[1], seeds[3]] == [0, 4]
    assert all(0 <= seed <= MAX_SEED - 3 for seed in seeds[1::2])


def test_evaluation_does_not_disturb_training(tmp_path: Path) -> None:
    often = make_run(tmp_path / "often")
    start = weights(often)
    often.learn()
    never = make_run(tmp_path / "never", tiny(evaluation_interval_steps=10_000))
    assert same(weights(never), start)
    never.learn()
    assert same(weights(often), weights(never))
    changed = {name for name, value in weights(often).items() if not torch.equal(value, start[name])}
    assert changed == set(start)  # actor and critic both learn


def test_the_exported_module_is_a_copy(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    module = run.module()
    assert all(tensor.requires_grad for tensor in run.model.policy.parameters())
    held = {id(tensor) for group in run.model.policy.optimizer.param_groups for tensor in group["params"]}
    assert held == {id(tensor) for tensor in run.model.policy.parameters()}
    assert not held & {id(tensor) for tensor in module.parameters()}
    before = {name: value.clone() for name, value in module.state_dict().items()}
    run.learn()
    assert same(before, dict(module.state_dict()))


def test_the_best_evaluated_weights_are_the_result(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    seen: list[tuple[float, dict[str, torch.Tensor]]] = []
    evaluate = run.evaluate

    def watched() -> None:
        evaluate()
        assert run.best is not None
        seen.append((run.best["score"], dict(run.best["policy"])))

    run.evaluate = watched  # type: ignore[method-assign]
    run.learn()
    result = run.result()
    assert len(seen) == 5 and [score for score, _ in seen] == sorted(score for score, _ in seen)
    best = seen[-1][1]
    bias = f"layers.{len(run.module().layers) - 1}.bias"
    keep = load_preset("smoke").problem().action_steps.index(0)  # type: ignore[union-attr]
    best[bias] = best[bias].clone()
    best[bias][keep] += run.best["keep_margin"]  # type: ignore[index]
    kept = dict(result.module.state_dict())
    assert torch.allclose(kept.pop(bias), best.pop(bias))
    assert same(kept, best)
    assert result.evaluation["eval_cost_mean"] <= -seen[-1][0]
    assert (result.steps, result.finished, result.action_kind, result.action_size) == (320, True, "discrete", 6)


@pytest.mark.parametrize("stop_at", [0, 32, 160, 320])
def test_a_stopped_run_goes_on_to_the_same_weights(tmp_path: Path, stop_at: int) -> None:
    # 310 is not a whole number of rollouts of 32: the last one overshoots.
    preset = tiny(total_steps=310)
    whole = make_run(tmp_path / "whole", preset)
    whole.learn()
    polls = iter(range(100))
    first = make_run(tmp_path / "cut", preset, stop=lambda: next(polls) >= stop_at // 32)
    first.learn()
    assert first.finished == (stop_at == 320)
    assert first.model.num_timesteps == first.result().steps == stop_at
    assert checkpoints(tmp_path / "cut")[-1:] == ([stop_at] if stop_at else [])
    second = make_run(tmp_path / "cut", preset)
    assert second.model.num_timesteps == stop_at
    second.learn()
    assert second.model.num_timesteps == whole.model.num_timesteps == 320
    assert same(weights(second), weights(whole))
    assert same(dict(second.result().module.state_dict()), dict(whole.result().module.state_dict()))
    assert second.result().evaluation == whole.result().evaluation


def test_checkpoints_come_at_their_interval_and_at_the_end(tmp_path: Path) -> None:
    make_run(tmp_path).learn()
    assert checkpoints(tmp_path) == [288, 320]


class Corridor(gym.Env[np.ndarray, object]):
    """Walk to the right."""

    def __init__(self, observation: spaces.Space | None = None, action: spaces.Space | None = None) -> None:
        self.observation_space = observation or spaces.Box(-1, 1, (1,), np.float32)
        self.action_space = action or spaces.Discrete(2)

    def reset(self, **_: object) -> tuple[np.ndarray, dict[str, object]]:
        return self.observation_space.sample(), {}


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"observation": spaces.Discrete(3)}, r"observations Discrete\(3\): only a Box of one dimension"),
        ({"observation": spaces.Box(0, 1, (2, 2))}, "only a Box of one dimension"),
        ({"action": spaces.MultiDiscrete([2, 2])}, "only Discrete and Box are supported"),
        ({"action": spaces.Discrete(2, start=1)}, "start at 0"),
    ],
)
def test_spaces_that_are_not_supported_are_refused(kwargs: dict[str, object], message: str) -> None:
    name = "Corridor-v0"
    gym.register(name, entry_point=lambda: Corridor(**kwargs), disable_env_checker=True)  # type: ignore[arg-type]
    try:
        preset = tiny(environment_id=name, reward="reward")
        with pytest.raises(UserError, match=message):
            make_env(preset)
    finally:
        gym.registry.pop(name)


def test_an_unknown_toolkit_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown toolkit 'rllib', known: sb3"):
        toolkit("rllib")


def test_keep_gets_the_head_start_that_costs_least(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    run.learn()
    problem = run.preset.problem()
    assert problem is not None and run.best is not None
    chosen, keep = run.best["keep_margin"], problem.action_steps.index(0)
    module = run.module()
    bias = f"layers.{len(module.layers) - 1}.bias"

    costs = {}
    for margin in KEEP_MARGINS:
        state = {name: value.clone() for name, value in run.best["policy"].items()}
        state[bias][keep] += margin - chosen
        module.load_state_dict(state)
        record = rollout(problem, TUNING_SEEDS[:1], ActionController(module.act))
        costs[margin] = float(summarise(record).cost.mean())

    assert costs[chosen] == pytest.approx(min(costs.values()))
    assert run.best["metrics"]["eval_cost_mean"] == pytest.approx(costs[chosen])


def test_another_environment_has_no_action_to_prefer(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", tiny(environment_id="CartPole-v1", reward="reward"))
    run.learn()
    assert run.best is not None and run.best["keep_margin"] == 0.0
