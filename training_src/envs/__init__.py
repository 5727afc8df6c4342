"""Environments. Importing this package registers ``AutoScaling-v0`` and ``AutoScalingClassic-v0`` with Gymnasium."""

from __future__ import annotations

import gymnasium as gym

from training_src.problem import CLASSIC, PROBLEMS

for _id in PROBLEMS:
    gym.register(
        _id,
        entry_point="training_src.envs.autoscaling:AutoScalingEnv",
        vector_entry_point="training_src.envs.autoscaling:AutoScalingVectorEnv",
        kwargs=CLASSIC if _id == "AutoScalingClassic-v0" else {},
    )
