"""The Gymnasium environments: ``AutoScalingVectorEnv`` (batched) and ``AutoScalingEnv`` (its view with one fleet)."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from training_src.envs.economics import Outcome
from training_src.envs.simulation import Simulation
from training_src.problem import Problem

Observation = npt.NDArray[np.float32]
Info = dict[str, Any]

# A load in machines and a fleet are each at most 10^12, e^27.6.
_LOG_BOUND = 30.0


def observation_space(simulation: Simulation) -> gym.spaces.Box[np.float32]:
    """Bounds of one fleet's observation, feature by feature."""
    shares = {"active_share", "failed_share"}
    waves = {"day_sin", "day_cos", "week_sin", "week_cos"}
    low, high = [], []
    for name in simulation.feature_names:
        is_share = name in shares or name.startswith("pending_in_")
        low.append(0.0 if is_share or name == "log_machines" else -1.0 if name in waves else -_LOG_BOUND)
        high.append(1.0 if is_share or name in waves else _LOG_BOUND)
    return gym.spaces.Box(np.array(low, np.float32), np.array(high, np.float32), dtype=np.float32)


class AutoScalingEnv(gym.Env[Observation, np.int64]):
    """Scale a fleet so that its capacity follows its load.

    ## Description
    Each step (a minute by default) the policy removes, keeps or adds machines. A machine that is ordered now serves
    ``provisioning_delay`` steps later; a machine that is released stops at once. Requests beyond the capacity of the
    active machines fail. The order within a step: decide, orders that are due become active, load arrives, capacity
    serves it, reward.

    ## Action Space
    ``Discrete(len(action_steps))``: action ``i`` adds ``action_steps[i]`` machines (negative: removes). The fleet's
    limits cut what is asked for. Scale-in cancels the youngest pending order first.

    ## Observation Space
    ``Box`` of ``len(feature_names)`` float32 values, defined in ``policy_runtime.features``: recent load (single
    values, trailing maxima and means), load around the time of arrival on earlier days, time of day and week, size of
    the fleet, share of active machines, share of failed requests, and the pending queue, without which the state
    would not be Markov. Load features are logarithms relative to the fleet as ordered.

    ## Rewards
    Value of the requests that succeed, less the cost of the machines, less a high penalty if the share of failed
    requests exceeds ``failure_threshold``; in dollars.

    ## Starting State
    The load's history is that of the week before. The fleet has ``initial_machines``, or as many as make the
    utilisation 60 % at the last load, none pending.

    ## Episode End
    Truncation after ``episode_steps``; an episode never terminates.

    ## Arguments
    ``load``, ``fleet``, ``economics``, ``action_steps``, ``episode_steps`` and the feature settings: the fields of
    ``training_src.problem.Problem``, as models or plain dictionaries. ``render_mode="rgb_array"`` draws the last
    day's load against capacity.

    ``info`` has ``cost`` (dollars: machines + penalty + value of failed requests), ``failed`` (requests), ``load``
    (requests), ``machines`` (active + pending), ``active`` and ``violation`` of the step.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 10}  # type: ignore[misc]

    def __init__(self, render_mode: str | None = None, **problem: Any) -> None:
        self.render_mode = render_mode
        self.simulation = Simulation(Problem.parse(problem), 1)
        self.observation_space = observation_space(self.simulation)
        steps = self.simulation.problem.action_steps
        self.action_space = gym.spaces.Discrete(len(steps))
        self._changes = np.array(steps, np.float32)
        self._capacity: list[float] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, Info]:
        """Start a new episode; everything of the last one is forgotten."""
        super().reset(seed=seed)
        self.simulation.reset([self.np_random])
        self._capacity = []
        return self.simulation.observation()[:, 0], {}

    def step(self, action: np.int64) -> tuple[Observation, float, bool, bool, Info]:
        """Add ``action_steps[action]`` machines and serve one step."""
        if not self.action_space.contains(action):
            raise ValueError(f"action {action!r} is not in {self.action_space}")
        outcome = self.simulation.step(self._changes[[int(action)]])
        if self.render_mode is not None:
            self._capacity.append(float(self.simulation.fleets.active[0]) * self.simulation.problem.fleet.throughput)
        info = {name: values[0].item() for name, values in step_info(self.simulation, outcome).items()}
        observation = self.simulation.observation()[:, 0]
        return observation, float(outcome.reward[0]), False, self.simulation.done, info

    def render(self) -> npt.NDArray[np.uint8] | None:
        """Draw the last day's load against capacity; shape ``(height, width, 3)``."""
        if self.render_mode is None:
            gym.logger.warn("render() needs render_mode='rgb_array'")
            return None
        from training_src.envs.render import draw_load_and_capacity

        first = max(0, len(self._capacity) - self.simulation.fleet_spec.steps_per_day)
        load = self.simulation.load[self.simulation.history :, 0][first : self.simulation.time]
        return draw_load_and_capacity(load, self._capacity[first:], self.simulation.minutes)


class AutoScalingVectorEnv(gym.vector.VectorEnv[Observation, npt.NDArray[np.int64], npt.NDArray[Any]]):
    """``num_envs`` independent ``AutoScalingEnv`` in one batch of arrays.

    With the same seed, environment ``i`` goes through the same trajectory as an ``AutoScalingEnv`` with seed
    ``seed + i``. Episodes have one length, so all end together; then the next ones start in the same step
    (``AutoresetMode.SAME_STEP``), and ``infos`` has ``final_obs`` and ``final_info``.

    Observations have shape ``(num_envs, features)``, stored feature by feature (the transpose is contiguous).
    """

    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        "render_modes": [],
        "autoreset_mode": AutoresetMode.SAME_STEP,
    }

    def __init__(self, num_envs: int = 1, render_mode: str | None = None, **problem: Any) -> None:
        if render_mode is not None:
            raise ValueError("the batched environment does not render: use AutoScaling-v0 with one environment")
        self.num_envs = num_envs
        self.render_mode = None
        self.simulation = Simulation(Problem.parse(problem), num_envs)
        self.single_observation_space = observation_space(self.simulation)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        steps = self.simulation.problem.action_steps
        self.single_action_space = gym.spaces.Discrete(len(steps))
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._changes = np.array(steps, np.float32)
        self._generators: list[np.random.Generator] = []
        self._all = np.ones(num_envs, np.bool_)
        self._none = np.zeros(num_envs, np.bool_)
        for array in (self._all, self._none):
            array.flags.writeable = False

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, Info]:
        """Start new episodes. ``seed`` makes environment ``i`` use ``seed + i``; a list gives each its own."""
        seeds = [seed + i for i in range(self.num_envs)] if isinstance(seed, int) else seed
        if seeds is not None and len(seeds) != self.num_envs:
            raise ValueError(f"{len(seeds)} seeds for {self.num_envs} environments")
        if seeds is not None or not self._generators:
            self._generators = [seeding.np_random(s)[0] for s in seeds or [None] * self.num_envs]
        self.simulation.reset(self._generators)
        return self.simulation.observation().T, {}

    def step(
        self, actions: npt.NDArray[np.int64]
    ) -> tuple[Observation, npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any], Info]:
        """Step all environments; ``actions`` has shape ``(num_envs,)``."""
        # Checked by hand: NumPy would take -1 for the last action and spread one action over all environments.
        if actions.shape != (self.num_envs,) or actions.min() < 0 or actions.max() >= len(self._changes):
            raise ValueError(f"actions {actions!r} are not in {self.action_space}")
        simulation = self.simulation
        outcome = simulation.step(self._changes[actions])
        infos: Info = dict(step_info(simulation, outcome))
        observation = simulation.observation().T
        if not simulation.done:
            infos |= {f"_{name}": self._all for name in infos}
            return observation, outcome.reward, self._none, self._none, infos
        simulation.reset(self._generators)
        final = {f"_{name}": self._all for name in infos} | infos
        infos = {"final_obs": observation, "_final_obs": self._all, "final_info": final, "_final_info": self._all}
        return simulation.observation().T, outcome.reward, self._none, self._all, infos

    def state(self) -> dict[str, Any]:
        """What ``restore`` needs to continue exactly here."""
        return self.simulation.state()

    def restore(self, state: dict[str, Any]) -> Observation:
        """Continue from ``state`` and return the observation there."""
        self._generators = [seeding.np_random(0)[0] for _ in range(self.num_envs)]
        self.simulation.restore(state, self._generators)
        return self.simulation.observation().T


def step_info(simulation: Simulation, outcome: Outcome) -> dict[str, npt.NDArray[Any]]:
    """What the last step did, each array of shape ``(n,)``."""
    return {
        "cost": outcome.cost,
        "failed": outcome.failed,
        "violation": outcome.violation,
        "load": simulation.load[simulation.history + simulation.time - 1].copy(),
        "machines": simulation.fleets.total,
        "active": simulation.fleets.active.copy(),
    }
