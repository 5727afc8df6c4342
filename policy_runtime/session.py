"""Running a learned policy: an ONNX graph from an observation to one score per action."""

from __future__ import annotations

import os
import threading

import numpy as np
import numpy.typing as npt

from policy_runtime.errors import BundleError

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # onnxruntime reads it when it is imported

import onnxruntime as ort  # type: ignore[import-untyped]

Floats = npt.NDArray[np.float32]


class OnnxPolicy:
    """A policy graph with one input ``observation`` and one output ``scores``, both float32, on one thread.

    Attributes:
        features: length of an observation.
        actions: number of scores.
    """

    def __init__(self, model: bytes) -> None:
        """Load a graph.

        Args:
            model: a serialised ``onnx.ModelProto`` with its weights inside.

        Raises:
            BundleError: the graph cannot be loaded, keeps weights outside, needs operators that onnxruntime does not
                have, or has other inputs and outputs than a policy.
        """
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 4  # what goes wrong is raised, not printed as well
        options.add_session_config_entry("session.load_model_format", "ONNX")
        # Weights outside the file would be looked for in the current folder; in the null device there are none.
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
        try:
            self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions have no narrower common base
            raise BundleError(f"policy.onnx: onnxruntime cannot load it: {error}") from error
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        self.features = _width("input", inputs, "observation")
        self.actions = _width("output", outputs, "scores")
        # A single observation takes the short way through arrays that stay bound: on the CPU an OrtValue shares its
        # array's memory.
        self._observation, self._scores = (np.zeros((1, width), np.float32) for width in (self.features, self.actions))
        self._binding = self._session.io_binding()
        self._binding.bind_ortvalue_input("observation", ort.OrtValue.ortvalue_from_numpy(self._observation))
        self._binding.bind_ortvalue_output("scores", ort.OrtValue.ortvalue_from_numpy(self._scores))
        self._lock = threading.Lock()

    def __call__(self, observation: Floats) -> Floats:
        """Scores of shape ``(n, actions)`` for observations of shape ``(n, features)``, float32; from any thread."""
        if observation.shape == self._observation.shape:
            with self._lock:
                self._observation[:] = observation
                self._session.run_with_iobinding(self._binding)
                return self._scores.copy()
        scores: Floats = self._session.run(["scores"], {"observation": observation})[0]
        return scores


def _width(kind: str, values: list[ort.NodeArg], name: str) -> int:
    """The second dimension of the only input or output, after checking that it is float32 ``[batch, fixed width]``."""
    if [value.name for value in values] != [name]:
        raise BundleError(f"policy.onnx: expected one {kind} {name!r}, got {[value.name for value in values]}")
    shape = values[0].shape
    is_batch_of_rows = len(shape) == 2 and not isinstance(shape[0], int) and isinstance(shape[1], int)
    if values[0].type != "tensor(float)" or not is_batch_of_rows:
        raise BundleError(
            f"policy.onnx: expected {kind} {name!r} to be float32 [batch, width] with any batch and a fixed width, "
            f"got {values[0].type} {shape}"
        )
    width: int = shape[1]
    return width
