"""From a path to a policy that has proved that it decides."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from policy_runtime import BundleError, Policy, decide, read_bundle
from policy_runtime.bundle import MANIFEST

ARCHIVE = "model.tar.gz"

logger = logging.getLogger(__name__)


def load(path: Path) -> Policy:
    """Load a bundle and decide once.

    Args:
        path: a ``model.tar.gz``, the folder that it unpacks to, or a folder that holds it.

    Raises:
        BundleError: there is no bundle, it is not valid, or its policy cannot decide.
    """
    if path.is_dir() and not (path / MANIFEST).exists() and (path / ARCHIVE).exists():
        path = path / ARCHIVE
    elif not path.exists():
        raise BundleError(f"{path}: does not exist, expected {ARCHIVE} or a folder with {MANIFEST}")
    policy = Policy(read_bundle(path, policy_may_be_missing=True))
    try:
        record = decide(policy, example_request(policy))
    except Exception as error:  # whatever it is, the policy is of no use
        raise BundleError(f"{path}: the policy cannot decide: {error}") from error
    if record["fallback"]:
        logger.warning("the rule will decide: %s", record["reason"])
    return policy


def example_request(policy: Policy) -> dict[str, Any]:
    """A request in which one machine has served all that it can for as long as the policy looks back."""
    features, fleet = policy.bundle.features, policy.bundle.fleet
    steps = max(features.history, fleet.provisioning_delay + 1)
    return {
        "timestamp": "2026-01-05T12:00:00+00:00",
        "load": [fleet.throughput] * steps,
        "failed": [0] * steps,
        "active": [1] * steps,
        "pending": [0] * steps,
        "seasonal": dict.fromkeys(policy.seasonal, fleet.throughput),
    }
