"""A bundle with a learned policy, and requests for it, for tests and benchmarks of whatever serves one."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from policy_runtime import Bundle
from policy_runtime.bundle import OnnxPart
from policy_runtime.decision import Policy
from policy_runtime.features import feature_names
from policy_runtime.spec import ActionSpec, FeatureSpec, FleetSpec
from training_src.export import export_onnx


def learned_bundle() -> Bundle:
    """A network of the default preset's shape, weights random but always the same, exported as training does it."""
    features, fleet, actions = FeatureSpec(), FleetSpec(), ActionSpec()
    size = len(feature_names(features, fleet))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.BatchNorm1d(size),  # when exported: the normalisation of observations, by mean 0 and variance 1
            *(nn.Linear(size, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, len(actions.steps))),
        )
    return Bundle(
        name="random",
        version="1",
        policy=OnnxPart(),
        fleet=fleet,
        features=features,
        actions=actions,
        files={"policy.onnx": export_onnx(network, size)},
    )


def decision_request(policy: Policy, steps: int) -> dict[str, Any]:
    """A request with this many steps of history and the seasonal values that the policy asks for, as JSON has it."""
    rng = np.random.default_rng(0)
    load = rng.integers(5_000, 7_000, steps)
    return {
        "timestamp": "2026-11-20T12:00:00+00:00",
        "load": load.tolist(),
        "failed": rng.integers(0, 20, steps).tolist(),
        "active": rng.integers(25, 30, steps).tolist(),
        "pending": rng.integers(0, 4, steps).tolist(),
        "seasonal": {name: float(rng.integers(5_000, 7_000)) for name in policy.seasonal},
    }
