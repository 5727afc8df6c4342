"""``make bench``: how fast the simulator, training and decisions are, as ratios to references taken in the same run.

CPU seconds of this process are measured, so that other work on the machine disturbs little. A goal that is missed is
said to be missed; nothing here fails because of it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback

import training_src.envs  # noqa: F401  (registers the environments)
from policy_runtime.decision import Policy, decide
from policy_runtime.rules import make_rule
from training_src.benchmark.metrics import summarise
from training_src.benchmark.rollout import TUNING_SEEDS, ActionController, BundleController, RuleController, run
from training_src.benchmark.statistics import paired_bootstrap
from training_src.envs.autoscaling import AutoScalingVectorEnv
from training_src.envs.simulation import Simulation
from training_src.export import make_bundle
from training_src.presets import Preset, load_preset, resolve
from training_src.problem import Problem
from training_src.toolkits import TrainedPolicy
from training_src.toolkits.sb3 import Sb3Run
from training_src.training_log import TrainingLog

RESULT = Path("build/bench/workflow.json")
CHECK_STEPS = 204_800


@dataclass(frozen=True)
class Measurement:
    """One line of the result.

    Attributes:
        name: what was measured.
        value, unit: how much.
        reference: the value that ``ratio`` refers to, in words.
        ratio: how many times better than the reference.
        goal: ratio or value wanted, in words; empty when there is none.
        met: whether the goal is met; None when there is none.
    """

    name: str
    value: float
    unit: str
    reference: str = ""
    ratio: float | None = None
    goal: str = ""
    met: bool | None = None


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure everything, print a table, and write it as JSON."""
    parser = argparse.ArgumentParser(prog="python -m training_src.benchmark.workflow", description=main.__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="training runs for the time to beat target tracking")
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    console = Console(highlight=False)
    console = console if console.is_terminal else Console(highlight=False, width=130)
    results: list[Measurement] = []
    for title, measure in (
        ("environment", measure_environment),
        ("training speed", measure_training_speed),
        ("decision latency", measure_latency),
        ("time to beat target tracking", lambda: measure_time_to_beat(options.seeds, console)),
    ):
        console.print(f"measuring {title} ...")
        results += measure()
    console.print(results_table(results))
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "machine": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "measurements": [asdict(result) for result in results],
    }
    RESULT.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    console.print(f"written to {RESULT}")


def measure_environment() -> list[Measurement]:
    """Steps per CPU second, all features included, against CartPole-v1 stepped alone.

    Over a whole episode, so that drawing the loads (two weeks of them for a week's episode) counts; and without it.
    The goals are for the whole.
    """
    reference = _cartpole_rate()
    results = [Measurement("CartPole-v1, one environment", reference, "steps/CPU s")]
    for n in (1, 16, 256, 4096):
        env = AutoScalingVectorEnv(n)
        actions = np.random.default_rng(0).integers(0, 6, (64, n))
        steps = env.simulation.problem.episode_steps
        start = time.process_time()
        env.reset(seed=0)
        drawn = time.process_time()
        for step in range(steps - 1):  # the last step would draw the next episode
            env.step(actions[step % 64])
        end = time.process_time()
        rate, stepping = n * (steps - 1) / (end - start), n * (steps - 1) / (end - drawn)
        goal = {256: 10, 4096: 50}.get(n)
        results += [
            Measurement(
                f"AutoScaling-v0, batch of {n}",
                rate,
                "steps/CPU s",
                "CartPole-v1",
                rate / reference,
                f"{goal}x" if goal else "",
                rate / reference >= goal if goal else None,
            ),
            Measurement("  with the loads already drawn", stepping, "steps/CPU s", "CartPole-v1", stepping / reference),
        ]
    return results


def _cartpole_rate(steps: int = 300_000) -> float:
    env = gym.make("CartPole-v1")
    env.action_space.seed(0)
    env.reset(seed=0)
    actions = [env.action_space.sample() for _ in range(1_000)]
    start = time.process_time()
    for step in range(steps):
        _, _, terminated, truncated, _ = env.step(actions[step % 1_000])
        if terminated or truncated:
            env.reset()
    return steps / (time.process_time() - start)


def measure_training_speed() -> list[Measurement]:
    """Environment steps that PPO learns from per CPU second, against Stable-Baselines3's defaults."""
    defaults = PPO("MlpPolicy", gym.make("AutoScaling-v0"), device="cpu", seed=0)
    reference = _rate(lambda: defaults.learn(8_192), 8_192)
    preset = load_preset("default")
    with _training(preset) as training:
        steps = 50 * preset.algorithm.hyperparameters.rollout_steps
        rate = _rate(lambda: training.model.learn(steps), steps)
    return [
        Measurement("PPO, defaults of Stable-Baselines3", reference, "steps/CPU s"),
        Measurement(
            "PPO, preset default", rate, "steps/CPU s", "the defaults", rate / reference, "20x", rate / reference >= 20
        ),
    ]


def _rate(work: Callable[[], object], steps: int) -> float:
    start = time.process_time()
    work()
    return steps / (time.process_time() - start)


def measure_latency(calls: int = 5_000) -> list[Measurement]:
    """Time of one policy step, and of a whole decision with its checks and guardrails."""
    preset = load_preset("default")
    with _training(preset) as training:
        model, module = training.model, training.module()
    size, actions = len(module.mean), len(_problem(preset).action_steps)
    trained = TrainedPolicy(module, size, actions, "discrete", steps=0, finished=False, evaluation={})
    policy = Policy(make_bundle(preset, trained))
    session = policy.learned
    assert session is not None
    observation = np.random.default_rng(0).standard_normal((1, size), dtype=np.float32)
    reference = _latency(lambda: model.predict(observation, deterministic=True), calls)
    step = _latency(lambda: session(observation).argmax(), calls)
    requests = itertools.cycle(_requests(preset, policy))
    whole = _latency(lambda: decide(policy, next(requests)), calls)
    return [
        Measurement("model.predict of Stable-Baselines3", reference * 1e6, "us"),
        Measurement(
            "policy step by onnxruntime",
            step * 1e6,
            "us",
            "model.predict",
            reference / step,
            "12x",
            reference / step >= 12,
        ),
        Measurement("decide(), an hour of history", whole * 1e6, "us", "model.predict", reference / whole),
    ]


def _requests(preset: Preset, policy: Policy) -> list[dict[str, object]]:
    """Requests of the first hours of an episode, as JSON would bring them."""
    simulation = Simulation(_problem(preset), 1)
    simulation.reset([np.random.default_rng(TUNING_SEEDS[0])])
    controller = _Recorder(policy)
    controller.start(simulation)
    for _ in range(200):
        simulation.step(controller.change(simulation))
    return controller.requests


class _Recorder(BundleController):
    """Keeps the requests that it decides on, with plain lists."""

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy)
        self.requests: list[dict[str, object]] = []

    def request(self, simulation: Simulation, lane: int) -> dict[str, object]:
        """The decision request of one fleet before the next step."""
        request = super().request(simulation, lane)
        self.requests.append(
            {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in request.items()}
        )
        return request


def _problem(preset: Preset) -> Problem:
    problem = preset.problem()
    assert problem is not None
    return problem


def _latency(call: Callable[[], object], calls: int) -> float:
    """Median seconds of a call, over batches, after a warm-up."""
    for _ in range(100):
        call()
    batches = []
    for _ in range(10):
        start = time.process_time()
        for _ in range(calls // 10 - 20):
            call()
        batches.append((time.process_time() - start) / (calls // 10 - 20))
    return float(np.median(batches))


def measure_time_to_beat(seeds: int, console: Console) -> list[Measurement]:
    """CPU seconds of training until the policy beats target tracking at 60 % on the 20 tuning loads.

    The test: the lower end of the 95 % interval of the paired difference in reward is above zero. It is made every
    ``CHECK_STEPS`` steps; the time it takes is not counted.
    """
    preset = load_preset("default")
    problem = _problem(preset)
    rule = make_rule("target_tracking", {"target": 0.6}, problem.fleet.spec())
    rival = summarise(run(problem, TUNING_SEEDS, RuleController(rule))).reward

    class Watch(BaseCallback):
        """Stops training once the test is passed."""

        def __init__(self, training: Sb3Run) -> None:
            super().__init__()
            self.training, self.checked, self.testing, self.passed = training, 0, 0.0, False
            self.start = time.process_time()

        def _on_rollout_start(self) -> None:
            self.training.update_average()
            if self.num_timesteps - self.checked < CHECK_STEPS:
                return
            self.checked = self.num_timesteps
            begin = time.process_time()
            record = run(problem, TUNING_SEEDS, ActionController(self.training.module().act))
            self.passed = paired_bootstrap(summarise(record).reward - rival).low > 0
            self.testing += time.process_time() - begin
            if self.passed:
                self.seconds = time.process_time() - self.start - self.testing

        def _on_step(self) -> bool:
            return not self.passed

    times = []
    for seed in range(seeds):
        with _training(resolve(preset, {"seed": str(seed)})) as training:
            watch = Watch(training)
            training.model.learn(preset.budget.total_steps, watch)
        times.append(watch.seconds if watch.passed else float("inf"))
        console.print(f"  seed {seed}: {times[-1]:.1f} CPU s, {watch.checked:,} steps")
    median = float(np.median(times))
    return [
        Measurement(
            f"training until target tracking 60 % is beaten, median of {seeds} seeds",
            median,
            "CPU s",
            goal="under 30 CPU s",
            met=median < 30,
        )
    ]


class _training:
    """A training run in a folder that is removed afterwards."""

    def __init__(self, preset: Preset) -> None:
        self.preset = preset
        self.folder = tempfile.TemporaryDirectory()

    def __enter__(self) -> Sb3Run:
        folder = Path(self.folder.name)
        return Sb3Run(self.preset, folder, TrainingLog(folder), lambda: False)

    def __exit__(self, *_: object) -> None:
        self.folder.cleanup()


def results_table(results: Sequence[Measurement]) -> Table:
    """One row for each measurement."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("measurement")
    for title in ("value", "unit", "ratio", "goal", ""):
        table.add_column(title, justify="right" if title in ("value", "ratio") else "left", no_wrap=True)
    for result in results:
        table.add_row(
            result.name,
            f"{result.value:,.0f}" if result.value >= 100 else f"{result.value:,.1f}",
            result.unit,
            f"{result.ratio:.2g}x {result.reference}"
            if result.ratio is not None and result.ratio < 10
            else f"{result.ratio:.0f}x {result.reference}"
            if result.ratio is not None
            else "",
            result.goal,
            {True: "met", False: "[red]missed[/]", None: ""}[result.met],
        )
    return table


if __name__ == "__main__":
    main()
