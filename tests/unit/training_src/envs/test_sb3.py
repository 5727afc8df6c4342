from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from stable_baselines3.common.evaluation import evaluate_policy

from training_src.envs.autoscaling import AutoScalingVectorEnv
from training_src.envs.sb3 import ScalingVecEnv

STEPS = 20


def make(reward: Literal["reward", "cost"] = "reward", n: int = 3) -> ScalingVecEnv:
    env = ScalingVecEnv(AutoScalingVectorEnv(n, episode_steps=STEPS, fleet={"throughput_noise": 30.0}), reward)
    env.seed(5)
    return env


def actions(count: int, n: int = 3) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(6, size=(count, n)))


def test_episodes_end_by_truncation_with_the_last_observation_and_the_return() -> None:
    env, plain = make(), AutoScalingVectorEnv(3, episode_steps=STEPS, fleet={"throughput_noise": 30.0})
    np.testing.assert_array_equal(env.reset(), plain.reset(seed=5)[0])
    returns = np.zeros(3)
    for episode in range(2):
        for step, action in enumerate(actions(STEPS)):
            observation, rewards, dones, infos = env.step(action)
            expected, expected_rewards, _, _, plain_infos = plain.step(action)
            np.testing.assert_array_equal(observation, expected)
            np.testing.assert_array_equal(rewards, expected_rewards)
            returns += expected_rewards
            if step < STEPS - 1:
                assert not dones.any() and infos == [{}, {}, {}]
        assert dones.all(), episode
        for lane, info in enumerate(infos):
            np.testing.assert_array_equal(info["terminal_observation"], plain_infos["final_obs"][lane])
            assert info["TimeLimit.truncated"] is True
            assert info["episode"] == {"r": pytest.approx(returns[lane]), "l": STEPS}
        returns[:] = 0


def test_reward_and_minus_cost_differ_by_the_value_of_the_load_alone() -> None:
    rewards, costs, plain = make("reward"), make("cost"), AutoScalingVectorEnv(3, episode_steps=STEPS)
    other_actions = make("cost")
    for env in (rewards, costs, other_actions):
        env.reset()
    plain.reset(seed=5)
    for step, action in enumerate(actions(STEPS)):
        observation, reward, _, info = rewards.step(action)
        other, minus_cost, _, cost_info = costs.step(action)
        np.testing.assert_array_equal(observation, other)
        *_, infos = plain.step(np.full(3, 2))  # other actions: the same load
        load = (infos if step < STEPS - 1 else infos["final_info"])["load"]
        np.testing.assert_allclose(reward - minus_cost, load * 0.9e-3, rtol=1e-3, atol=1e-4)
        assert (minus_cost <= 0).all()
    # The return that is logged is the environment's own reward, whatever is learned from.
    assert [one["episode"] for one in info] == [one["episode"] for one in cost_info]


def test_a_seed_holds_for_the_next_reset_only() -> None:
    env = make()
    first = env.reset()
    assert not np.array_equal(env.reset(), first)
    assert env.seed(5) == [5, 6, 7]
    np.testing.assert_array_equal(env.reset(), first)


def test_training_goes_on_from_a_state_with_the_same_returns() -> None:
    env, other = make("cost"), make("cost")
    env.reset()
    for action in actions(STEPS + 5):
        env.step(action)
    other.restore(env.state())
    for action in actions(STEPS):
        expected, found = env.step(action), other.step(action)
        for one, two in zip(expected[:3], found[:3], strict=True):
            np.testing.assert_array_equal(one, two)
        np.testing.assert_equal(expected[3], found[3])


def test_attributes_belong_to_the_batch() -> None:
    env = make()
    assert env.get_attr("num_envs") == [3, 3, 3]
    assert env.env_is_wrapped(object, indices=[0, 2]) == [False, False]  # type: ignore[arg-type]
    with pytest.raises(NotImplementedError):
        env.set_attr("num_envs", 4)
    with pytest.raises(NotImplementedError):
        env.env_method("reset")


def test_stable_baselines3_evaluates_on_it_as_on_its_own() -> None:
    class Keep:
        def predict(self, observation: np.ndarray, **_: object) -> tuple[np.ndarray, None]:
            return np.full(len(observation), 2), None

    env = make()
    rewards, lengths = evaluate_policy(Keep(), env, 3, return_episode_rewards=True, warn=False)  # type: ignore[arg-type]
    assert lengths == [STEPS] * 3
    plain = AutoScalingVectorEnv(3, episode_steps=STEPS, fleet={"throughput_noise": 30.0})
    plain.reset(seed=5)
    expected = sum(plain.step(np.full(3, 2))[1] for _ in range(STEPS))
    np.testing.assert_allclose(rewards, expected, rtol=1e-5)
