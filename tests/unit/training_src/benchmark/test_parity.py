"""What `decide` sees of a fleet is what the environment shows in training, bit for bit."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from gymnasium.utils import seeding

from policy_runtime.bundle import Bundle, OnnxPart
from policy_runtime.decision import Policy, decide
from training_src.benchmark.rollout import BundleController
from training_src.envs.simulation import Simulation
from training_src.problem import CLASSIC, Problem

Floats = npt.NDArray[np.float32]

FLEETS = 3
PROBLEMS: dict[str, dict[str, Any]] = {
    "default": {},
    "five-minute steps": {"fleet": {"step_seconds": 300}},
    "no delay": {"fleet": {"provisioning_delay": 0}},
    "a delay longer than every window": {"fleet": {"provisioning_delay": 20}, "lags": [1], "windows": [5]},
    "narrow limits": {"fleet": {"min_machines": 18, "max_machines": 30}},
    "no seasonal features, no calendar": {"seasonal_days": [], "calendar": False},
    "classic": CLASSIC,
}


class RandomPolicy:
    """In place of the ONNX graph: notes what it is shown and asks for random actions."""

    def __init__(self, actions: int) -> None:
        self.actions = actions
        self.rng = np.random.default_rng(0)
        self.seen: list[Floats] = []

    def __call__(self, observation: Floats) -> Floats:
        self.seen.append(observation[0].copy())
        return self.rng.permutation(self.actions).astype(np.float32)[None, :]


def start(settings: dict[str, Any], steps: int) -> tuple[Simulation, Policy, RandomPolicy]:
    problem = Problem.parse({**settings, "episode_steps": steps})
    bundle = Bundle(
        name="random",
        version="1",
        policy=OnnxPart(),
        fleet=problem.fleet.spec(),
        features=problem.features(),
        actions=problem.actions(),
    )
    policy, learned = Policy(bundle), RandomPolicy(len(problem.action_steps))
    policy.learned = learned  # type: ignore[assignment]
    simulation = Simulation(problem, FLEETS)
    simulation.reset([seeding.np_random(seed)[0] for seed in range(FLEETS)])
    return simulation, policy, learned


@pytest.mark.parametrize("settings", PROBLEMS.values(), ids=PROBLEMS.keys())
def test_decide_sees_the_observation_of_training_from_the_first_step_of_an_episode_on(settings: dict[str, Any]) -> None:
    simulation, policy, learned = start(settings, steps=300)
    controller = BundleController(policy)
    controller.start(simulation)

    while not simulation.done:
        expected = simulation.observation()
        learned.seen.clear()
        change = controller.change(simulation)

        assert not any(record["fallback"] for record in controller.latest)
        np.testing.assert_array_equal(np.stack(learned.seen, axis=1), expected)
        simulation.step(change)


@pytest.mark.parametrize("step_seconds", [60, 300])
def test_a_request_in_json_with_a_long_history_instead_of_seasonal_values_shows_the_same(step_seconds: int) -> None:
    simulation, policy, learned = start({"fleet": {"step_seconds": step_seconds}}, steps=30)
    controller = BundleController(policy)
    controller.start(simulation)
    while simulation.time < 20:
        simulation.step(controller.change(simulation))
    expected = simulation.observation()
    controller.change(simulation)  # so that its histories reach up to the last step

    for lane in range(FLEETS):
        request = controller.request(simulation, lane)
        long = simulation.load[: simulation.history + simulation.time, lane].tolist()
        for name in ("failed", "active", "pending"):
            recent = request[name].tolist()
            request[name] = [0.0] * (len(long) - len(recent)) + recent
        del request["seasonal"]
        learned.seen.clear()
        decide(policy, json.loads(json.dumps({**request, "load": long})))

        np.testing.assert_array_equal(learned.seen[0], expected[:, lane])
