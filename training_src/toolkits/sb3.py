"""PPO by Stable-Baselines3, on the batched environment, with checkpoints from which training resumes exactly."""

from __future__ import annotations

import copy
import hashlib
import json
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import VecEnv, VecNormalize
from torch import nn

from training_src.benchmark.metrics import summarise
from training_src.benchmark.rollout import TUNING_SEEDS, ActionController, run
from training_src.envs.autoscaling import AutoScalingVectorEnv
from training_src.envs.sb3 import ScalingVecEnv
from training_src.errors import UserError
from training_src.presets import Preset
from training_src.presets.schema import MAX_SEED
from training_src.problem import Problem
from training_src.toolkits import TrainedPolicy
from training_src.toolkits.checkpoint import check_settings, load_checkpoint, save_checkpoint
from training_src.training_log import TrainingLog

Floats = npt.NDArray[np.float32]

_SB3_METRICS = {
    "train_policy_loss": "train/policy_gradient_loss",
    "train_value_loss": "train/value_loss",
    "train_approx_kl": "train/approx_kl",
    "train_explained_variance": "train/explained_variance",
}
_LOG_SECONDS = 5.0

KEEP_MARGINS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4)
"""Head starts of the action "keep" that are tried on the tuning loads, in units of the scores (logits)."""


class Sb3Toolkit:
    """Trains with Stable-Baselines3; the algorithm is PPO."""

    def train(self, preset: Preset, checkpoints: Path, log: TrainingLog, stop: Callable[[], bool]) -> TrainedPolicy:
        """Train as the preset says; see ``Toolkit.train``."""
        training = Sb3Run(preset, checkpoints, log, stop)
        training.learn()
        return training.result()


class Sb3Run:
    """One training run.

    Attributes:
        model: Stable-Baselines3's PPO.
        env: its environment, which normalises observations and rewards.
    """

    def __init__(self, preset: Preset, checkpoints: Path, log: TrainingLog, stop: Callable[[], bool]) -> None:
        """Set up the run, from the newest checkpoint when there is one."""
        # Two threads slow small networks down, and one makes sums, so results, repeatable.
        torch.set_num_threads(1)
        self.preset = preset
        self.checkpoints = checkpoints
        self.log = log
        self.stop = stop
        settings = preset.algorithm.hyperparameters
        self.env = VecNormalize(
            make_env(preset),
            norm_obs=settings.normalize_observation,
            norm_reward=settings.normalize_reward,
            clip_reward=float("inf"),  # a clipped penalty is one that the policy learns to accept
            gamma=settings.gamma,
        )
        rate = settings.learning_rate
        # The last rollout may go beyond the budget, so that less than nothing is left of it.
        self.model = PPO(
            "MlpPolicy",
            self.env,
            learning_rate=rate if settings.learning_rate_schedule == "constant" else lambda left: rate * max(left, 0.0),
            n_steps=settings.n_steps,
            batch_size=settings.batch_size,
            n_epochs=settings.n_epochs,
            gamma=settings.gamma,
            gae_lambda=settings.gae_lambda,
            clip_range=settings.clip_range,
            ent_coef=settings.ent_coef,
            vf_coef=settings.vf_coef,
            max_grad_norm=settings.max_grad_norm,
            seed=preset.budget.seed,
            device="cuda" if torch.cuda.is_available() else "cpu",
            policy_kwargs={
                "net_arch": list(settings.hidden_sizes),
                "activation_fn": {"relu": nn.ReLU, "tanh": nn.Tanh}[settings.activation],
                "optimizer_kwargs": {"fused": True},
            },
        )
        # PPO seeds its environment with its own seed; each run gets training loads of its own instead.
        self.env.seed(preset.budget.seed * settings.n_envs % (MAX_SEED + 1 - settings.n_envs))
        # Averaged weights (Polyak and Juditsky, 1992): single updates are noisy because violations are rare and dear.
        self.average = self._weights()
        self.averaged_at = 0
        self.best: dict[str, Any] | None = None
        self.learning_curve: list[tuple[int, float]] = []
        self.last_evaluation = 0
        self.last_checkpoint = 0
        content = load_checkpoint(checkpoints, log.note)
        if content is not None:
            self._restore(content)

    def learn(self) -> None:
        """Train until the budget is spent or ``stop`` says so, then evaluate and save a last time."""
        total = self.preset.budget.total_steps
        if self.model.num_timesteps < total:
            resumed = self.model._last_obs is not None
            boundary = _Boundary(self)
            self.model.learn(
                total - self.model.num_timesteps if resumed else total,
                callback=boundary,
                log_interval=None,  # type: ignore[arg-type]
                reset_num_timesteps=not resumed,
            )
            if boundary.stopping:
                # The first step of the rollout that was given up is not part of the run.
                self.model.num_timesteps = self.last_checkpoint
        if self.finished and self.last_evaluation < self.model.num_timesteps:
            self.evaluate()
            self.save()
        if self.finished and self.best is not None and "keep_margin" not in self.best:
            self.choose_keep_margin()
            self.save()

    def update_average(self) -> None:
        """Move the averaged weights towards the current ones; once for each update, also across a resume."""
        steps = self.model.num_timesteps
        if steps == self.averaged_at:
            return
        self.averaged_at = steps
        updates = steps / self.preset.algorithm.hyperparameters.rollout_steps
        # Young averages forget faster, or the first weights would stay in them.
        keep = min(self.preset.algorithm.hyperparameters.weight_averaging, (1 + updates) / (10 + updates))
        for name, weights in self._weights().items():
            self.average[name].mul_(keep).add_(weights, alpha=1 - keep)

    def _weights(self) -> dict[str, torch.Tensor]:
        return {name: value.detach().clone() for name, value in self.model.policy.state_dict().items()}

    @property
    def finished(self) -> bool:
        """Whether the budget is spent."""
        return bool(self.model.num_timesteps >= self.preset.budget.total_steps)

    def evaluate(self) -> None:
        """Evaluate the averaged weights, without touching any state of the training, and keep the best."""
        self.last_evaluation = self.model.num_timesteps
        policy = self.module()
        problem = self.preset.problem()
        if problem is None:
            reward = self._evaluate_other(policy, self.preset.budget.evaluation_episodes)
            metrics, score = {"eval_reward_mean": reward}, reward
        else:
            metrics = self._evaluate_scaling(problem, policy)
            score = -metrics["eval_cost_mean"]
        if self.best is None or score > self.best["score"]:
            self.best = {"score": score, "metrics": dict(metrics), "policy": policy.state_dict()}
        self.learning_curve.append((self.model.num_timesteps, metrics["eval_reward_mean"]))
        if problem is not None:
            metrics["eval_best_cost"] = -self.best["score"]
        self.log.metrics(self.model.num_timesteps, metrics)

    def choose_keep_margin(self) -> None:
        """Give "keep" a head start over the other actions of the best policy: the one that costs least.

        Where two actions are about equally good a policy without it flaps: it orders machines in one minute and cancels
        them in the next, which the simulation charges little for and a real fleet dislikes.
        """
        assert self.best is not None
        self.best["keep_margin"] = 0.0
        problem = self.preset.problem()
        if problem is None:
            return
        keep = problem.action_steps.index(0)
        module = self.module()
        module.load_state_dict(self.best["policy"])
        bias = cast(nn.Linear, module.layers[-1]).bias
        for before, margin in pairwise(KEEP_MARGINS):
            bias[keep] += margin - before
            metrics = self._evaluate_scaling(problem, module)
            if -metrics["eval_cost_mean"] > self.best["score"]:
                state = {name: value.clone() for name, value in module.state_dict().items()}
                score = -metrics["eval_cost_mean"]
                self.best = {"score": score, "metrics": metrics, "policy": state, "keep_margin": margin}
        self.log.note(f"the action 'keep' has a head start of {self.best['keep_margin']}, chosen on the tuning loads")
        self.log.metrics(self.model.num_timesteps, {**self.best["metrics"], "eval_best_cost": -self.best["score"]})

    def _evaluate_scaling(self, problem: Problem, policy: PolicyModule) -> dict[str, float]:
        seeds = TUNING_SEEDS[: self.preset.budget.evaluation_episodes]
        summary = summarise(run(problem, seeds, ActionController(policy.act)))
        return {
            "eval_reward_mean": float(summary.reward.mean()),
            "eval_cost_mean": float(summary.cost.mean()),
            "eval_violation_minutes_per_day": summary.per_day().violation_minutes,
            "eval_machine_hours": float(summary.machine_hours.mean()),
            "eval_success_rate": float(summary.success_rate.mean()),
        }

    def _evaluate_other(self, policy: PolicyModule, episodes: int) -> float:
        env = make_vec_env(
            partial(gym.make, self.preset.environment.id), 1, TUNING_SEEDS[0], env_kwargs=_kwargs(self.preset)
        )
        predictor = _Predictor(policy, env.action_space)
        reward, _ = evaluate_policy(cast(PPO, predictor), env, episodes)
        env.close()
        return float(cast(float, reward))

    def module(self) -> PolicyModule:
        """The policy with averaged weights and its normalisation, a copy."""
        size = int(np.prod(self.env.observation_space.shape or ()))
        if self.preset.algorithm.hyperparameters.normalize_observation:
            rms = cast(Any, self.env.obs_rms)
            mean, deviation = rms.mean, np.sqrt(rms.var + self.env.epsilon)
        else:
            mean, deviation = np.zeros(size), np.ones(size)
        current = self._weights()
        self.model.policy.load_state_dict(self.average)
        module = PolicyModule(self.model.policy, mean, deviation, self.env.clip_obs)
        self.model.policy.load_state_dict(current)
        return module

    def result(self) -> TrainedPolicy:
        """The best policy found."""
        if self.best is None:  # stopped before the first evaluation
            self.evaluate()
            assert self.best is not None
        module = self.module()
        module.load_state_dict(self.best["policy"])
        space = self.env.action_space
        discrete = isinstance(space, spaces.Discrete)
        return TrainedPolicy(
            module=module,
            observation_size=int(np.prod(self.env.observation_space.shape or ())),
            action_size=int(space.n) if isinstance(space, spaces.Discrete) else int(np.prod(space.shape or ())),
            action_kind="discrete" if discrete else "continuous",
            steps=self.model.num_timesteps,
            finished=self.finished,
            evaluation=self.best["metrics"],
            learning_curve=tuple(self.learning_curve),
        )

    def save(self) -> None:
        """Write a checkpoint; called between updates only."""
        self.last_checkpoint = self.model.num_timesteps
        numpy_state = np.random.get_state(legacy=False)
        batched = isinstance(self.env.venv, ScalingVecEnv)
        generators = {
            "torch": torch.get_rng_state(),
            "numpy": json.dumps(numpy_state, default=lambda array: array.tolist()),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }
        content = {
            "settings": json.dumps(self._settings()),
            "steps": self.model.num_timesteps,
            "policy": self.model.policy.state_dict(),
            "optimizer": self.model.policy.optimizer.state_dict(),
            "generators": generators,
            "normalisation": _normalisation(self.env),
            # Only the batched environment can say where it is; others start a new episode when training resumes.
            "environment": _to_tensors(cast(ScalingVecEnv, self.env.venv).state()) if batched else None,
            "observation": torch.as_tensor(np.array(self.model._last_obs)),
            "episode_starts": torch.as_tensor(np.array(self.model._last_episode_starts)),
            "average": self.average,
            "averaged_at": self.averaged_at,
            "best": self.best,
            "learning_curve": json.dumps(self.learning_curve),
            "last_evaluation": self.last_evaluation,
        }
        save_checkpoint(self.checkpoints, self.model.num_timesteps, content)

    def _settings(self) -> dict[str, Any]:
        """What a resumed run must share with the one before: a trace by its content, wherever it lies."""
        values = self.preset.values()
        if "load_path" in values:
            values["load_path"] = hashlib.sha256(Path(values["load_path"]).read_bytes()).hexdigest()
        return values

    def _restore(self, content: dict[str, Any]) -> None:
        check_settings(json.loads(content["settings"]), json.loads(json.dumps(self._settings())))
        model = self.model
        model.policy.load_state_dict(content["policy"])
        model.policy.optimizer.load_state_dict(content["optimizer"])
        model.num_timesteps = self.last_checkpoint = content["steps"]
        self.average = {name: value.to(model.device) for name, value in content["average"].items()}
        self.averaged_at = content["averaged_at"]
        self.best, self.last_evaluation = content["best"], content["last_evaluation"]
        self.learning_curve = [(steps, reward) for steps, reward in json.loads(content.get("learning_curve", "[]"))]
        _restore_normalisation(self.env, content["normalisation"])
        if content["environment"] is None:
            model._last_obs = self.env.reset()
            model._last_episode_starts = np.ones(self.env.num_envs, bool)
        else:
            cast(ScalingVecEnv, self.env.venv).restore(_from_tensors(content["environment"]))
            model._last_obs = content["observation"].numpy()
            model._last_episode_starts = content["episode_starts"].numpy()
        torch.set_rng_state(content["generators"]["torch"])
        if torch.cuda.is_available() and content["generators"]["cuda"]:
            torch.cuda.set_rng_state_all(content["generators"]["cuda"])
        numpy_state = json.loads(content["generators"]["numpy"])
        numpy_state["state"]["key"] = np.array(numpy_state["state"]["key"], np.uint32)
        np.random.set_state(numpy_state)
        self.log.forget_after(model.num_timesteps)
        self.log.note(f"resumed from the checkpoint at {model.num_timesteps:,} steps")


class _Boundary(BaseCallback):
    """Acts between updates: the start of a rollout is the end of the update before it."""

    def __init__(self, run: Sb3Run) -> None:
        super().__init__()
        self.run = run
        self.stopping = False
        self._logged_at = time.monotonic()
        self._logged_steps = run.model.num_timesteps

    def _on_rollout_start(self) -> None:
        run, steps, budget = self.run, self.num_timesteps, self.run.preset.budget
        run.update_average()
        run.log.progress(steps, budget.total_steps)
        if time.monotonic() - self._logged_at >= _LOG_SECONDS:
            self._log_training()
        if steps - run.last_evaluation >= budget.evaluation_interval_steps:
            run.evaluate()
        self.stopping = run.stop()
        if steps and (self.stopping or steps - run.last_checkpoint >= budget.checkpoint_interval_steps):
            run.save()

    def _on_step(self) -> bool:
        return not self.stopping

    def _on_training_end(self) -> None:
        if not self.stopping:
            self.run.update_average()
        self.run.log.progress(self.num_timesteps, self.run.preset.budget.total_steps)
        self._log_training()

    def _log_training(self) -> None:
        logged = self.run.model.logger.name_to_value
        now, steps = time.monotonic(), self.num_timesteps
        values = {name: float(logged[key]) for name, key in _SB3_METRICS.items() if key in logged}
        if "train/entropy_loss" in logged:
            values["train_entropy"] = -float(logged["train/entropy_loss"])
        episodes = [episode["r"] for episode in self.run.model.ep_info_buffer or ()]
        if episodes:
            values["train_reward_mean"] = float(np.mean(episodes))
        values["train_steps_per_second"] = (steps - self._logged_steps) / max(now - self._logged_at, 1e-9)
        values["train_total_steps"] = steps
        values["train_progress"] = min(1.0, steps / self.run.preset.budget.total_steps)
        self.run.log.metrics(steps, values)
        self._logged_at, self._logged_steps = now, steps


class PolicyModule(nn.Module):
    """An actor with its observation normalisation, as it is exported: observations in, scores out."""

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(
        self, policy: ActorCriticPolicy, mean: npt.NDArray[Any], deviation: npt.NDArray[Any], clip: float
    ) -> None:
        """Copy the actor's part of ``policy``; ``mean`` and ``deviation`` have the observation's shape."""
        super().__init__()
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float32).flatten())
        self.register_buffer("deviation", torch.as_tensor(deviation, dtype=torch.float32).flatten())
        self.clip = clip
        # Copies: the policy goes on learning, and its optimiser holds its own tensors.
        layers = copy.deepcopy([*policy.mlp_extractor.policy_net, policy.action_net])
        self.layers = nn.Sequential(*layers).cpu()
        self.requires_grad_(False)
        self.eval()

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        """Scores of shape ``(batch, actions)`` for observations of shape ``(batch, features)``."""
        normalised = ((observation - self.mean) / self.deviation).clamp(-self.clip, self.clip)
        return cast(torch.Tensor, self.layers(normalised))

    def act(self, observation: Floats) -> npt.NDArray[np.int64]:
        """Actions of shape ``(batch,)`` for a discrete action space."""
        with torch.no_grad():
            scores = self(torch.as_tensor(np.ascontiguousarray(observation)))
        return cast("npt.NDArray[np.int64]", scores.argmax(dim=1).numpy())


class _Predictor:
    """What ``evaluate_policy`` asks for, around a ``PolicyModule``."""

    def __init__(self, policy: PolicyModule, space: spaces.Space[Any]) -> None:
        self.policy = policy
        self.space = space

    def predict(self, observation: npt.NDArray[Any], **_: Any) -> tuple[npt.NDArray[Any], None]:
        flat = np.asarray(observation, np.float32).reshape(len(observation), -1)
        if isinstance(self.space, spaces.Discrete):
            return self.policy.act(flat), None
        box = cast(spaces.Box, self.space)
        with torch.no_grad():
            actions = self.policy(torch.as_tensor(flat)).numpy()
        return np.clip(actions.reshape(len(flat), *box.shape), box.low, box.high), None


def make_env(preset: Preset) -> VecEnv:
    """The training environment of a preset.

    Raises:
        UserError: the environment cannot be made, or its spaces are not supported.
    """
    settings = preset.algorithm.hyperparameters
    problem = preset.problem()
    if problem is not None:
        env = AutoScalingVectorEnv(settings.n_envs, **problem.model_dump())
        return ScalingVecEnv(env, settings.reward)
    name = preset.environment.id
    try:
        vec_env = make_vec_env(partial(gym.make, name), settings.n_envs, env_kwargs=_kwargs(preset))
    except ModuleNotFoundError as error:
        raise UserError(
            f"environment_id: {name!r} cannot be imported: {error}; is its module in the source folder?"
        ) from error
    except (gym.error.Error, TypeError) as error:
        raise UserError(f"environment_id: {name!r} cannot be made: {error}") from error
    observation, action = vec_env.observation_space, vec_env.action_space
    if not isinstance(observation, spaces.Box) or len(observation.shape) != 1:
        raise UserError(
            f"environment {name!r} has observations {observation}: only a Box of one dimension is supported"
        )
    if not isinstance(action, (spaces.Discrete, spaces.Box)):
        raise UserError(f"environment {name!r} has actions {action}: only Discrete and Box are supported")
    if isinstance(action, spaces.Discrete) and action.start != 0:
        raise UserError(f"environment {name!r} has actions {action}: they must start at 0")
    return vec_env


def _kwargs(preset: Preset) -> dict[str, Any]:
    return cast(dict[str, Any], preset.environment.kwargs)


def _normalisation(env: VecNormalize) -> dict[str, Any]:
    """Running statistics of observations and returns, as tensors and numbers."""
    state: dict[str, Any] = {"returns": torch.as_tensor(env.returns)}
    for name in ("obs_rms", "ret_rms"):
        rms = getattr(env, name, None)
        if rms is not None:
            state[name] = {
                "mean": torch.as_tensor(np.array(rms.mean)),
                "var": torch.as_tensor(np.array(rms.var)),
                "count": float(rms.count),
            }
    return state


def _restore_normalisation(env: VecNormalize, state: dict[str, Any]) -> None:
    env.returns = state["returns"].numpy().copy()
    for name in ("obs_rms", "ret_rms"):
        if name in state:
            rms = getattr(env, name)
            rms.mean, rms.var = state[name]["mean"].numpy().copy(), state[name]["var"].numpy().copy()
            rms.count = state[name]["count"]


def _to_tensors(state: dict[str, Any]) -> dict[str, Any]:
    """Arrays as tensors, other values (generator states hold integers of 128 bits) as JSON text."""
    return {
        key: torch.as_tensor(value) if isinstance(value, np.ndarray) else json.dumps(value)
        for key, value in state.items()
    }


def _from_tensors(state: dict[str, Any]) -> dict[str, Any]:
    return {
        key: value.numpy() if isinstance(value, torch.Tensor) else json.loads(value) for key, value in state.items()
    }
