from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from policy_runtime.errors import BundleError
from policy_runtime.session import OnnxPolicy


def test_scores_are_those_of_the_graph(linear_model) -> None:
    weights = np.arange(6, dtype=np.float32).reshape(3, 2)
    policy = OnnxPolicy(linear_model(weights, np.array([1.0, -1.0])))
    observation = np.array([[1, 2, 3], [0, 0, 1]], np.float32)
    assert (policy.features, policy.actions) == (3, 2)
    np.testing.assert_allclose(policy(observation), observation @ weights + [1, -1])
    one, other = policy(observation[:1]), policy(observation[1:])
    np.testing.assert_array_equal(np.concatenate([one, other]), policy(observation))


def test_threads_share_a_policy(linear_model) -> None:
    policy = OnnxPolicy(linear_model(np.eye(4)))
    observations = np.arange(4_000, dtype=np.float32).reshape(-1, 1, 4)
    with ThreadPoolExecutor(4) as threads:
        scores = list(threads.map(policy, observations))
    np.testing.assert_array_equal(scores, observations)


@pytest.mark.parametrize("location", ["weights.bin", "../weights.bin", "{folder}/weights.bin"])
def test_weights_outside_the_graph_are_refused(linear_model, tmp_path, monkeypatch, location: str) -> None:
    (tmp_path / "weights.bin").write_bytes(np.ones((3, 2), np.float32).tobytes())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BundleError, match=r"policy.onnx: onnxruntime cannot load it.*[Ee]xternal"):
        OnnxPolicy(linear_model(np.ones((3, 2)), external=location.format(folder=tmp_path)))


def test_unknown_operators_are_refused(linear_model) -> None:
    with pytest.raises(BundleError, match=r"policy.onnx: onnxruntime cannot load it.*my.domain"):
        OnnxPolicy(linear_model(np.ones((3, 2)), domain="my.domain"))


def test_other_inputs_than_a_policys_are_refused(linear_model) -> None:
    with pytest.raises(BundleError, match="expected one input 'observation', got"):
        OnnxPolicy(linear_model(np.ones((3, 2)), input_name="x"))
    with pytest.raises(BundleError, match="to be float32"):
        OnnxPolicy(linear_model(np.ones((3, 2)), batch=1))


@pytest.mark.parametrize("data", [b"", b"not a graph"])
def test_what_is_not_a_graph_is_refused(data: bytes) -> None:
    with pytest.raises(BundleError, match=r"policy.onnx: onnxruntime cannot load it"):
        OnnxPolicy(data)
