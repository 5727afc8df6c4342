"""Decisions over HTTP are those of the evaluator, minute by minute over a day."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import numpy as np
import pytest

from policy_runtime import Policy, builtin_bundle
from policy_runtime.bundle import Bundle
from tests.integration.serving_client import JSON, Server, ask
from training_src.benchmark.rollout import REPORTING_SEEDS, BundleController, Floats, run
from training_src.envs.simulation import Simulation
from training_src.problem import Problem

DAY = 1440


class Recorder(BundleController):
    """The evaluator's controller, keeping what it asks and what it is told."""

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy)
        self.requests: list[dict[str, Any]] = []
        self.records: list[dict[str, Any]] = []

    def request(self, simulation: Simulation, lane: int) -> dict[str, Any]:
        request = super().request(simulation, lane)
        copy = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in request.items()}
        self.requests.append(copy)
        return request

    def change(self, simulation: Simulation) -> Floats:
        changes = super().change(simulation)
        self.records.append(self.latest[0])
        return changes


@pytest.mark.parametrize("kind", ["builtin", "learned"])
def test_a_replayed_day_is_decided_alike(
    kind: str, server: Server, learned_server: Server, learned_bundle: Bundle
) -> None:
    policy = Policy(builtin_bundle() if kind == "builtin" else learned_bundle)
    controller = Recorder(policy)
    run(Problem(episode_steps=DAY), REPORTING_SEEDS[:1], controller)

    state: dict[str, Any] | None = None
    with contextlib.closing((server if kind == "builtin" else learned_server).connection()) as connection:
        for request, record in zip(controller.requests, controller.records, strict=True):
            answer = ask(connection, "POST", "/invocations", json.dumps(request | {"state": state}), JSON)
            assert answer.status == 200
            assert answer.json() == record
            state = answer.json()["state"]

    assert len(controller.records) == DAY
    assert not any(record["fallback"] for record in controller.records)
    assert len({record["delta"] for record in controller.records}) > 1
