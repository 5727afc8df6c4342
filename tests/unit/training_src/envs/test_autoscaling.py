from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3.common.env_checker as sb3_checker
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

import training_src.envs  # noqa: F401 (registers the environments)
from training_src.envs.autoscaling import AutoScalingEnv, AutoScalingVectorEnv
from training_src.envs.trace import TraceError

IDS = ["AutoScaling-v0", "AutoScalingClassic-v0"]
INFO = {"cost", "failed", "violation", "load", "machines", "active"}


@pytest.mark.parametrize("name", IDS)
def test_the_registered_environments_pass_the_checks_of_gymnasium_and_stable_baselines3(name: str) -> None:
    check_env(gym.make(name).unwrapped)
    check_env(gym.make(name, render_mode="rgb_array").unwrapped)
    sb3_checker.check_env(gym.make(name).unwrapped)


@pytest.mark.parametrize("name", IDS)
def test_the_registered_environments_can_be_made_alone_and_batched(name: str) -> None:
    env = gym.make(name, episode_steps=30)
    observation, info = env.reset(seed=1)
    assert env.observation_space.contains(observation) and info == {}
    batch = gym.make_vec(name, 3, vectorization_mode="vector_entry_point", episode_steps=30)
    assert isinstance(batch.unwrapped, AutoScalingVectorEnv)
    assert batch.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    observations, _ = batch.reset(seed=1)
    assert batch.observation_space.contains(observations)
    np.testing.assert_array_equal(observations[0], observation)
    for _ in range(30):
        observations, rewards, terminated, truncated, infos = batch.step(batch.action_space.sample())
    assert truncated.all() and not terminated.any() and rewards.shape == (3,)
    assert set(infos) == {"final_obs", "_final_obs", "final_info", "_final_info"}


def test_the_classic_id_stands_for_the_published_constants() -> None:
    env = gym.make("AutoScalingClassic-v0").unwrapped
    assert isinstance(env, AutoScalingEnv)
    problem = env.simulation.problem
    assert (problem.load.kind, problem.fleet.initial_machines, problem.fleet.throughput_noise) == ("classic", 50, 30.0)
    assert problem.episode_steps == 10_000


def rollout(env: AutoScalingEnv, steps: int, seed: int | None) -> list[Any]:
    found: list[Any] = [env.reset(seed=seed)[0].tolist()]
    rng = np.random.default_rng(0)
    for _ in range(steps):
        observation, reward, *_, info = env.step(rng.integers(6))
        found.append((observation.tolist(), reward, info))
    return found


def test_a_seed_fixes_the_trajectory_and_no_seed_goes_on_to_another_episode() -> None:
    one, two = AutoScalingEnv(episode_steps=50), AutoScalingEnv(episode_steps=50)
    assert rollout(one, 50, seed=4) == rollout(two, 50, seed=4)
    second = rollout(one, 50, seed=None)
    assert second == rollout(two, 50, seed=None)
    assert second != rollout(AutoScalingEnv(episode_steps=50), 50, seed=4)
    assert rollout(AutoScalingEnv(episode_steps=50), 50, seed=5) != rollout(one, 50, seed=4)


@pytest.mark.parametrize("steps", [0, 7, 50])
def test_reset_forgets_everything(steps: int) -> None:
    env = AutoScalingEnv(episode_steps=50, fleet={"throughput_noise": 20.0})
    rollout(env, steps, seed=1)
    fresh = AutoScalingEnv(episode_steps=50, fleet={"throughput_noise": 20.0})
    assert rollout(env, 50, seed=2) == rollout(fresh, 50, seed=2)


def test_info_tells_what_the_step_did() -> None:
    env = AutoScalingEnv(fleet={"initial_machines": 10, "provisioning_delay": 2})
    env.reset(seed=0)
    _, reward, terminated, truncated, info = env.step(np.int64(5))  # five more machines
    assert set(info) == INFO
    assert (info["machines"], info["active"], terminated, truncated) == (15.0, 10.0, False, False)
    assert info["failed"] == max(info["load"] - 3000, 0.0)
    assert info["violation"] is (info["failed"] > 0.005 * info["load"])
    assert reward + info["cost"] == pytest.approx(info["load"] * 0.9e-3, rel=1e-4)


def test_a_batch_tells_the_last_observation_and_info_of_an_episode_when_the_next_begins() -> None:
    batch = AutoScalingVectorEnv(2, episode_steps=3, fleet={"initial_machines": 10})
    batch.reset(seed=0)
    up = np.array([5, 5])
    batch.step(up)
    *_, infos = batch.step(up)
    assert set(infos) == INFO | {f"_{name}" for name in INFO}
    kept = {name: infos[name].copy() for name in INFO}
    observations, rewards, _, truncated, last = batch.step(up)
    assert truncated.all()
    final = last["final_info"]
    assert set(final) == INFO | {f"_{name}" for name in INFO} and last["_final_obs"].all()
    assert final["machines"].tolist() == [25.0, 25.0] and final["active"].tolist() == [10.0, 10.0]
    assert (final["failed"] > 0).all()
    np.testing.assert_allclose(rewards + final["cost"], final["load"] * 0.9e-3, rtol=1e-3)
    assert not np.array_equal(last["final_obs"], observations)
    names = batch.simulation.feature_names
    np.testing.assert_allclose(last["final_obs"][:, names.index("log_machines")], np.log(26), rtol=1e-6)
    np.testing.assert_allclose(observations[:, names.index("log_machines")], np.log(11), rtol=1e-6)
    for name in INFO:  # what an earlier step returned stays as it was
        np.testing.assert_array_equal(infos[name], kept[name])


def test_seeds_of_a_batch_are_one_for_each_environment() -> None:
    batch = AutoScalingVectorEnv(3)
    counted, _ = batch.reset(seed=5)
    listed, _ = batch.reset(seed=[7, 6, 5])
    np.testing.assert_array_equal(listed, counted[::-1])
    following, _ = batch.reset()
    assert not np.array_equal(following, listed)
    with pytest.raises(ValueError, match="2 seeds for 3 environments"):
        batch.reset(seed=[1, 2])


def test_render_draws_an_image_that_follows_the_episode() -> None:
    env = gym.make("AutoScaling-v0", render_mode="rgb_array")
    env.reset(seed=0)
    empty = env.render()
    assert isinstance(empty, np.ndarray)
    env.step(3)
    env.step(3)
    first = env.render()
    for _ in range(100):
        env.step(3)
    second = env.render()
    assert isinstance(first, np.ndarray) and isinstance(second, np.ndarray)
    assert second.dtype == np.uint8 and second.ndim == 3 and second.shape[2] == 3
    assert first.shape == second.shape and first.std() > 1
    assert not np.array_equal(empty, first) and not np.array_equal(first, second)
    env.reset(seed=0)
    np.testing.assert_array_equal(env.render(), empty)


def test_render_shows_the_last_day_only() -> None:
    env = AutoScalingEnv(render_mode="rgb_array", fleet={"step_seconds": 3600}, episode_steps=60)
    env.reset(seed=0)
    for _ in range(50):
        env.step(np.int64(2))
    image = env.render()
    assert image is not None and image.std() > 1


def test_without_a_render_mode_render_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    env = AutoScalingEnv()
    env.reset(seed=0)
    with pytest.warns(UserWarning, match="needs render_mode='rgb_array'"):
        assert env.render() is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lod": {}}, "lod"),
        ({"fleet": {"throughput": -1.0}}, r"fleet\.throughput"),
        ({"fleet": {"min_machines": 9, "max_machines": 8}}, "min_machines: 9 is above max_machines"),
        ({"load": {"kind": "sawtooth"}}, "sawtooth"),
        ({"action_steps": [1, 2]}, "that include 0"),
        ({"episode_steps": 0}, "episode_steps"),
    ],
)
def test_wrong_arguments_are_refused_by_name(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        AutoScalingEnv(**settings)
    with pytest.raises(ValidationError, match=message):
        AutoScalingVectorEnv(2, **settings)


def test_a_missing_trace_is_refused_by_its_path() -> None:
    with pytest.raises(TraceError, match=r"nowhere\.csv: no such file"):
        AutoScalingEnv(load={"kind": "trace", "path": "nowhere.csv"})


def test_a_batch_does_not_render() -> None:
    with pytest.raises(ValueError, match="does not render"):
        AutoScalingVectorEnv(2, render_mode="rgb_array")


@pytest.mark.parametrize("action", [6, -1, 1.5])
def test_an_action_that_does_not_exist_is_refused(action: Any) -> None:
    env = AutoScalingEnv()
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"is not in Discrete\(6\)"):
        env.step(action)


@pytest.mark.parametrize("actions", [[0, 6], [-1, 0], [0], [[0, 0]], []])
def test_actions_of_a_batch_that_do_not_exist_are_refused(actions: list[Any]) -> None:
    batch = AutoScalingVectorEnv(2)
    batch.reset(seed=0)
    with pytest.raises(ValueError, match="are not in MultiDiscrete"):
        batch.step(np.array(actions, np.int64))


@settings(deadline=None, max_examples=20)
@given(
    seed=st.integers(0, 2**31),
    throughput=st.floats(1e-3, 1e9),
    level=st.floats(1e-3, 1e9),
    low=st.integers(0, 100),
    delay=st.integers(0, 30),
    actions=st.lists(st.integers(0, 5), min_size=1, max_size=30),
)
def test_observations_stay_in_their_space(
    seed: int, throughput: float, level: float, low: int, delay: int, actions: list[int]
) -> None:
    env = AutoScalingEnv(
        load={"kind": "synthetic", "level": level},
        fleet={"throughput": throughput, "min_machines": low, "max_machines": 1_000_000, "provisioning_delay": delay},
        episode_steps=30,
    )
    observation, _ = env.reset(seed=seed)
    assert env.observation_space.contains(observation)
    for action in actions:
        observation, reward, *_ = env.step(np.int64(action))
        assert env.observation_space.contains(observation)
        assert np.isfinite(reward)
