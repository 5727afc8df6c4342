"""The classic problem gives the rewards that the published simulator gives."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from gymnasium.utils import seeding

from training_src.envs.simulation import Simulation
from training_src.problem import PROBLEMS

SEEDS = range(100)


def do_nothing(simulation: Simulation) -> np.ndarray:
    return np.zeros(simulation.n, np.float32)


def forty_machines(simulation: Simulation) -> np.ndarray:
    return 40 - simulation.fleets.total


def sixty_percent(simulation: Simulation) -> np.ndarray:
    if simulation.time % 5:
        return do_nothing(simulation)
    load = simulation.load[simulation.history + simulation.time - 1]
    return np.clip(np.ceil(load / (0.6 * 300)) - simulation.fleets.total, -10, 10).astype(np.float32)


@pytest.mark.parametrize(
    ("rule", "reference"), [(do_nothing, 16_400), (forty_machines, 20_300), (sixty_percent, 27_000)]
)
def test_the_reference_reward_of_a_rule_is_reproduced(
    rule: Callable[[Simulation], np.ndarray], reference: float
) -> None:
    simulation = Simulation(PROBLEMS["AutoScalingClassic-v0"], len(SEEDS))
    simulation.reset([seeding.np_random(seed)[0] for seed in SEEDS])
    reward = np.zeros(simulation.n)
    while not simulation.done:
        reward += simulation.step(rule(simulation)).reward
    assert reward.mean() == pytest.approx(reference, rel=0.05)
