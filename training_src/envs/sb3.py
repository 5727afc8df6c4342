"""``AutoScalingVectorEnv`` as a Stable-Baselines3 ``VecEnv``, without copying or looping over environments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

from training_src.envs.autoscaling import AutoScalingVectorEnv


class ScalingVecEnv(VecEnv):
    """The batched environment for Stable-Baselines3.

    Episodes end by truncation, so the last step's ``infos`` hold ``terminal_observation`` and
    ``TimeLimit.truncated``, and ``episode`` with the summed reward and the length, as ``VecMonitor`` would give.
    Other steps share one list of empty dictionaries: filling hundreds a step costs more than the simulation.

    Args:
        env: the batched environment.
        reward: ``"reward"`` trains on the environment's reward; ``"cost"`` on minus the cost, which differs from it by
            the value of the whole load. No action changes that value, so both have the same optimal policy, but the
            cost has far less variance.
    """

    def __init__(self, env: AutoScalingVectorEnv, reward: Literal["reward", "cost"] = "reward") -> None:
        self.env = env  # the base class already asks for its render mode
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)
        self.reward = reward
        self._actions = np.zeros(env.num_envs, np.int64)
        self._returns = np.zeros(env.num_envs)
        self._infos: list[dict[str, Any]] = [{} for _ in range(env.num_envs)]
        self._seed_once: int | None = None

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Use ``seed + i`` for environment ``i`` from the next reset on."""
        self._seed_once = seed
        return [None if seed is None else seed + i for i in range(self.num_envs)]

    def reset(self) -> VecEnvObs:
        """Start new episodes."""
        observation, _ = self.env.reset(seed=self._seed_once)
        self._seed_once = None
        self._returns[:] = 0.0
        return observation

    def step_async(self, actions: npt.NDArray[Any]) -> None:
        """Keep the actions for ``step_wait``."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Step all environments."""
        observation, rewards, _, truncated, infos = self.env.step(self._actions)
        self._returns += rewards
        done = bool(truncated[0])
        if self.reward == "cost":
            rewards = -(infos["final_info"] if done else infos)["cost"]
        if not done:
            return observation, rewards, truncated, self._infos
        length = self.env.simulation.problem.episode_steps
        final: list[dict[str, Any]] = [
            {
                "terminal_observation": infos["final_obs"][i],
                "TimeLimit.truncated": True,
                "episode": {"r": float(self._returns[i]), "l": length},
            }
            for i in range(self.num_envs)
        ]
        self._returns[:] = 0.0
        return observation, rewards, truncated, final

    def state(self) -> dict[str, Any]:
        """What ``restore`` needs to continue exactly here."""
        return {**self.env.state(), "returns": self._returns.copy()}

    def restore(self, state: dict[str, Any]) -> VecEnvObs:
        """Continue from ``state`` and return the observation there."""
        self._returns = np.array(state["returns"])
        return self.env.restore(state)

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The batch's attribute, once for each environment asked for."""
        return [getattr(self.env, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Refused: the environments of a batch share their attributes."""
        raise NotImplementedError("the environments of a batch share their attributes: set them on `env`")

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Refused: the environments of a batch have no methods of their own."""
        raise NotImplementedError("the environments of a batch have no methods of their own: call `env`'s")

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        """No environment of a batch is wrapped."""
        return [False for _ in self._get_indices(indices)]
