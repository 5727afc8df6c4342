from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from policy_runtime.bundle import Bundle, OnnxPart
from policy_runtime.features import feature_names
from policy_runtime.spec import ActionSpec, FeatureSpec, FleetSpec, GuardrailSpec

LinearModel = Callable[..., bytes]
LearnedBundle = Callable[..., Bundle]


@pytest.fixture(scope="session")
def linear_model() -> LinearModel:
    """Makes the graph scores = observation @ weights + bias."""

    def make(
        weights: np.ndarray,
        bias: np.ndarray | None = None,
        *,
        input_name: str = "observation",
        external: str | None = None,
        domain: str = "",
        batch: str | int = "batch",
    ) -> bytes:
        features, actions = weights.shape
        weight = numpy_helper.from_array(weights.astype(np.float32), "weights")
        if external is not None:
            weight.ClearField("raw_data")
            weight.data_location = TensorProto.EXTERNAL
            location = weight.external_data.add()
            location.key, location.value = "location", external
        shift = np.zeros(actions) if bias is None else bias
        graph = helper.make_graph(
            [
                helper.make_node("MatMul", [input_name, "weights"], ["product"], domain=domain),
                helper.make_node("Add", ["product", "bias"], ["scores"]),
            ],
            "policy",
            [helper.make_tensor_value_info(input_name, TensorProto.FLOAT, [batch, features])],
            [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, actions])],
            [weight, numpy_helper.from_array(shift.astype(np.float32), "bias")],
        )
        opsets = [helper.make_opsetid("", 18), *([helper.make_opsetid(domain, 1)] if domain else [])]
        return helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()

    return make


@pytest.fixture(scope="session")
def learned_bundle(linear_model: LinearModel) -> LearnedBundle:
    """Makes a scaling bundle whose policy always gives the scores `bias` (the weights are 0 unless given)."""

    def make(
        bias: list[float] | None = None,
        *,
        weights: np.ndarray | None = None,
        features: FeatureSpec | None = None,
        actions: ActionSpec | None = None,
        guardrails: GuardrailSpec | None = None,
        fleet: FleetSpec | None = None,
    ) -> Bundle:
        features = features or FeatureSpec(seasonal_days=())
        actions, fleet = actions or ActionSpec(), fleet or FleetSpec()
        size = len(feature_names(features, fleet))
        if weights is None:
            weights = np.zeros((size, len(actions.steps)))
        scores = np.zeros(len(actions.steps)) if bias is None else np.array(bias)
        return Bundle(
            name="linear",
            version="7",
            policy=OnnxPart(),
            fleet=fleet,
            features=features,
            actions=actions,
            guardrails=guardrails or GuardrailSpec(),
            provenance={"preset": "smoke", "seed": 3, "metrics": {"reward": 1.5}},
            files={"policy.onnx": linear_model(weights, scores), "evaluation.json": b'{"schema": 1}'},
        )

    return make
