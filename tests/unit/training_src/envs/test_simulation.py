from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium.utils import seeding

from policy_runtime.features import exogenous_features, observe, pending_queue
from training_src.envs.autoscaling import AutoScalingEnv, AutoScalingVectorEnv
from training_src.envs.simulation import Simulation
from training_src.problem import Problem

NOISY: dict[str, Any] = {
    "fleet": {"throughput_noise": 30.0, "max_machines": 40, "provisioning_delay": 3},
    "economics": {"violation_penalty": 7.0},
    "episode_steps": 300,
}
SETTINGS: list[dict[str, Any]] = [
    NOISY,
    {"load": {"kind": "classic"}, "fleet": {"billing": "activation", "provisioning_delay": 0}, "episode_steps": 260},
    {"fleet": {"step_seconds": 300, "initial_machines": 7}, "episode_steps": 100, "calendar": False},
]


def generators(n: int, first_seed: int = 0) -> list[np.random.Generator]:
    return [seeding.np_random(first_seed + i)[0] for i in range(n)]


def started(settings: dict[str, Any], n: int, first_seed: int = 0) -> Simulation:
    simulation = Simulation(Problem.parse(settings), n)
    simulation.reset(generators(n, first_seed))
    return simulation


@pytest.mark.parametrize("settings", SETTINGS)
def test_the_single_environment_is_a_lane_of_the_batch_over_several_episodes(settings: dict[str, Any]) -> None:
    n, lanes, seed = 260, (0, 31, 32, 255, 259), 50
    batch = AutoScalingVectorEnv(n, **settings)
    singles = {lane: AutoScalingEnv(**settings) for lane in lanes}
    observations, _ = batch.reset(seed=seed)
    for lane, env in singles.items():
        np.testing.assert_array_equal(env.reset(seed=seed + lane)[0], observations[lane])
    rng = np.random.default_rng(0)
    steps = settings["episode_steps"]
    for step in range(2 * steps + 20):
        actions = rng.integers(batch.single_action_space.n, size=n)
        observations, rewards, terminated, truncated, infos = batch.step(actions)
        over = (step + 1) % steps == 0
        assert (truncated == over).all() and not terminated.any()
        final = infos["final_info"] if over else infos
        for lane, env in singles.items():
            observation, reward, _, single_truncated, info = env.step(actions[lane])
            assert single_truncated == over
            assert rewards[lane] == reward
            assert {name: final[name][lane].item() for name in info} == info
            if over:
                np.testing.assert_array_equal(infos["final_obs"][lane], observation)
                observation, _ = env.reset()
            np.testing.assert_array_equal(observations[lane], observation)


@pytest.mark.parametrize("settings", SETTINGS)
def test_each_request_succeeds_or_fails(settings: dict[str, Any]) -> None:
    simulation = started(settings, 8)
    economics, rng = simulation.problem.economics, np.random.default_rng(1)
    violations = 0
    while not simulation.done:
        outcome = simulation.step(rng.integers(-4, 5, 8).astype(np.float32))
        load = simulation.load[simulation.history + simulation.time - 1]
        spent = simulation.fleets.billed * economics.machine_cost * simulation.minutes
        spent += outcome.violation * economics.violation_penalty * simulation.minutes
        succeeded = (outcome.reward.astype(np.float64) + spent) * 1000 / economics.success_value
        np.testing.assert_allclose(succeeded + outcome.failed, load, rtol=1e-4, atol=0.5)
        assert (outcome.failed >= 0).all() and (outcome.failed <= load).all()
        if simulation.throughput is None:
            capacity = simulation.fleets.active * simulation.problem.fleet.throughput
            np.testing.assert_allclose(outcome.failed, np.maximum(load - capacity, 0), rtol=1e-6)
        violations += int(outcome.violation.sum())
    assert violations > 0


def test_throughput_noise_is_one_draw_a_step_for_the_whole_fleet() -> None:
    simulation = started(NOISY | {"episode_steps": 2000}, 4)
    assert simulation.throughput is not None
    served = []
    while not simulation.done:
        outcome = simulation.step(np.full(4, -1.0, np.float32))
        load = simulation.load[simulation.history + simulation.time - 1]
        served.append((load - outcome.failed) / simulation.fleets.active)
    per_machine = np.array(served)
    assert per_machine.mean() == pytest.approx(300, abs=2)
    assert per_machine.std() == pytest.approx(30, rel=0.05)
    assert abs(np.corrcoef(per_machine.T) - np.eye(4)).max() < 0.1


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("steps", [0, 1, 95])
def test_training_goes_on_from_a_state_as_if_it_had_not_been_interrupted(settings: dict[str, Any], steps: int) -> None:
    env = AutoScalingVectorEnv(5, **settings)
    env.reset(seed=3)
    rng = np.random.default_rng(2)
    episode = settings["episode_steps"]
    for _ in range(episode + steps):  # in the second episode
        env.step(rng.integers(6, size=5))
    other = AutoScalingVectorEnv(5, **settings)
    other.reset(seed=77)
    other.step(np.zeros(5, np.int64))
    state = env.state()
    np.testing.assert_array_equal(other.restore(state), env.simulation.observation().T)
    for _ in range(episode + 10):  # into the third
        actions = rng.integers(6, size=5)
        expected, found = env.step(actions), other.step(actions)
        for one, two in zip(expected[:4], found[:4], strict=True):
            np.testing.assert_array_equal(one, two)
        np.testing.assert_equal(expected[4], found[4])


def test_a_state_does_not_change_when_its_environment_goes_on() -> None:
    env = AutoScalingVectorEnv(2, **NOISY)
    env.reset(seed=3)
    for _ in range(10):
        env.step(np.full(2, 5))
    state = env.state()
    first = AutoScalingVectorEnv(2, **NOISY).restore(state)
    for _ in range(NOISY["episode_steps"]):  # into the next episode
        env.step(np.full(2, 4))
    np.testing.assert_array_equal(AutoScalingVectorEnv(2, **NOISY).restore(state), first)


@pytest.mark.parametrize("settings", SETTINGS)
def test_an_observation_is_what_the_runtime_computes_from_the_past_alone(settings: dict[str, Any]) -> None:
    n = 3
    simulation = started(settings, n, first_seed=9)
    spec, fleet, delay = simulation.feature_spec, simulation.fleet_spec, simulation.fleet_spec.provisioning_delay
    sizes = [simulation.fleets.total.copy()] * (delay + 1)
    rng = np.random.default_rng(4)
    while True:
        now = simulation.history + simulation.time
        found = simulation.observation()
        for lane in range(n):
            past = simulation.load[:now, [lane]].copy()
            exogenous = exogenous_features(past, now, 1, spec, fleet, simulation.clock[[lane]])[0]
            queue = pending_queue([size[lane].item() for size in sizes], delay)
            active = np.array([sizes[-1][lane] - sum(queue)], np.float32)
            pending = np.array(queue, np.float32).reshape(delay, 1)
            expected = observe(exogenous, spec, active, pending, past[-1], simulation.failed[[lane]])
            np.testing.assert_array_equal(found[:, [lane]], expected)
        if simulation.done:
            break
        simulation.step(rng.integers(-3, 4, n).astype(np.float32))
        sizes = [*sizes[1:], simulation.fleets.total.copy()]


def test_a_fleet_starts_at_60_percent_utilisation_of_the_load_last_seen() -> None:
    simulation = started({"fleet": {"max_machines": 1000}}, 20)
    utilisation = simulation.load[simulation.history - 1] / (simulation.fleets.active * 300)
    assert (utilisation <= 0.6).all() and (utilisation > 0.55).all()
    assert (simulation.fleets.pending == 0).all()


def test_no_step_follows_the_last_without_a_reset() -> None:
    simulation = started({"episode_steps": 2}, 1)
    for _ in range(2):
        simulation.step(np.zeros(1, np.float32))
    assert simulation.done
    with pytest.raises(RuntimeError, match="the episode is over"):
        simulation.step(np.zeros(1, np.float32))


@pytest.mark.parametrize(
    "features",
    [
        {"lags": (), "windows": (5,)},
        {"lags": (1,), "windows": (), "seasonal_days": (), "calendar": False},
        {"lags": (), "windows": (), "seasonal_days": (1,), "calendar": True},
        {"lags": (), "windows": (), "seasonal_days": (), "calendar": False},
    ],
)
def test_each_kind_of_feature_can_be_left_out(features: dict[str, Any]) -> None:
    simulation = started({**features, "episode_steps": 20}, 2)
    while not simulation.done:
        observation = simulation.observation()
        assert observation.shape == (len(simulation.feature_names), 2)
        assert np.isfinite(observation).all()
        simulation.step(np.zeros(2, np.float32))
