from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from stable_baselines3.common.vec_env import VecNormalize

from policy_runtime import Policy, decide
from policy_runtime.bundle import Bundle, read_bundle, write_bundle
from policy_runtime.session import OnnxPolicy
from policy_runtime.spec import GuardrailSpec
from training_src.benchmark.rollout import ActionController, BundleController, run
from training_src.export import export_onnx, make_bundle
from training_src.presets import Preset, load_preset, resolve
from training_src.problem import Problem, TraceLoad
from training_src.toolkits.sb3 import Sb3Run
from training_src.training_log import TrainingLog


@pytest.fixture(scope="module")
def preset() -> Preset:
    return resolve(load_preset("smoke"), {"total_steps": "2048", "episode_steps": "300", "evaluation_episodes": "1"})


@pytest.fixture(scope="module")
def trained(preset: Preset, tmp_path_factory: pytest.TempPathFactory) -> Sb3Run:
    folder = tmp_path_factory.mktemp("run")
    training = Sb3Run(preset, folder, TrainingLog(folder), lambda: False)
    training.learn()
    return training


@pytest.fixture(scope="module")
def bundle(preset: Preset, trained: Sb3Run) -> Bundle:
    return make_bundle(preset, trained.result())


def test_the_exported_policy_acts_as_stable_baselines3_does_on_10_000_observations(trained: Sb3Run) -> None:
    env = trained.env
    assert isinstance(env, VecNormalize)
    rng, seen = np.random.default_rng(0), []
    env.venv.seed(123)
    observation = env.venv.reset()
    while sum(map(len, seen)) < 10_000:
        seen.append(observation)
        observation, *_ = env.venv.step(rng.integers(6, size=env.num_envs))
    observations = np.concatenate(seen)[:10_000].astype(np.float32)
    current = {name: value.clone() for name, value in trained.model.policy.state_dict().items()}
    trained.model.policy.load_state_dict(trained.average)  # what is exported
    expected, _ = trained.model.predict(env.normalize_obs(observations), deterministic=True)
    trained.model.policy.load_state_dict(current)
    policy = OnnxPolicy(export_onnx(trained.module(), observations.shape[1]))
    found = policy(observations).argmax(axis=1)
    np.testing.assert_array_equal(found, expected)
    assert len(np.unique(found)) > 1
    one_by_one = [policy(observation[None])[0].argmax() for observation in observations[:50]]
    np.testing.assert_array_equal(one_by_one, found[:50])


def test_an_export_that_computes_something_else_is_refused() -> None:
    class TwoFaced(torch.nn.Module):
        """Gives other scores while it is exported."""

        def forward(self, observation: torch.Tensor) -> torch.Tensor:
            return observation * (2.0 if torch.compiler.is_exporting() else 1.0)

    with pytest.raises(RuntimeError, match="differs from the trained one"):
        export_onnx(TwoFaced(), 3)


def test_a_bundle_is_written_read_and_decides_as_the_policy_did_in_training(
    bundle: Bundle, preset: Preset, trained: Sb3Run, tmp_path: Path
) -> None:
    write_bundle(bundle, tmp_path / "model.tar.gz")
    loaded = read_bundle(tmp_path / "model.tar.gz")
    assert loaded == bundle
    problem = preset.problem()
    assert problem is not None
    assert (loaded.fleet, loaded.features, loaded.actions) == (
        problem.fleet.spec(),
        problem.features(),
        problem.actions(),
    )
    controller = BundleController(Policy(loaded))
    deployed = run(problem, range(10_000, 10_002), controller)
    policy = OnnxPolicy(loaded.files["policy.onnx"])
    learned = run(
        problem, range(10_000, 10_002), ActionController(lambda seen: policy(np.ascontiguousarray(seen)).argmax(1))
    )
    np.testing.assert_array_equal(deployed.machines, learned.machines)
    assert len(np.unique(learned.machines)) > 1
    for decisions in controller.decisions:
        assert not any(decision.fallback for decision in decisions)


def test_guardrails_leave_room_for_the_actions_and_for_long_steps(preset: Preset, trained: Sb3Run) -> None:
    problem = Problem.parse({"action_steps": [-30, -3, 0, 1, 3, 50], "fleet": {"step_seconds": 300}})

    guardrails = make_bundle(preset.with_problem(problem), trained.result()).guardrails

    assert (guardrails.max_step_up, guardrails.max_step_down, guardrails.stale_after_seconds) == (50, 30, 900.0)
    assert make_bundle(preset, trained.result()).guardrails == GuardrailSpec()


def test_a_bundle_decides_on_a_plain_request(bundle: Bundle) -> None:
    policy = Policy(bundle)
    steps = policy.history
    record = decide(
        policy,
        {
            "timestamp": 1.7e9,
            "load": [6000] * steps,
            "failed": [0] * steps,
            "active": [20] * steps,
            "pending": [0] * steps,
        },
    )
    assert record["fallback"] is False
    assert record["delta"] in bundle.actions.steps
    assert record["policy"]["version"] == bundle.version


def test_a_trace_is_known_by_name_and_content_and_not_by_its_place(
    preset: Preset, trained: Sb3Run, tmp_path: Path
) -> None:
    trace = tmp_path / "load.csv"
    trace.write_text("timestamp,value\n")
    problem = preset.problem()
    assert problem is not None
    replay = preset.with_problem(problem.model_copy(update={"load": TraceLoad(path=str(trace))}))
    bundle = make_bundle(replay, trained.result())
    assert bundle.provenance["trace"] == {"name": "load.csv", "sha256": hashlib.sha256(trace.read_bytes()).hexdigest()}
    assert str(tmp_path) not in bundle.files["preset.yaml"].decode()


def test_provenance_tells_where_a_policy_comes_from(preset: Preset, trained: Sb3Run, tmp_path: Path) -> None:
    bundle = make_bundle(preset, trained.result())
    assert (bundle.provenance["preset"], bundle.provenance["steps"], bundle.provenance["finished"]) == (
        "smoke",
        2048,
        True,
    )
    assert set(bundle.provenance["evaluation"]) >= {"eval_cost_mean", "eval_reward_mean"}
    assert bundle.version == f"2048-{hashlib.sha256(bundle.files['policy.onnx']).hexdigest()[:8]}"
    (tmp_path / "again.yaml").write_bytes(bundle.files["preset.yaml"])
    assert load_preset(tmp_path / "again.yaml").values() == preset.values()
