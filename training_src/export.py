"""From a trained policy to a bundle: an ONNX graph with normalisation inside, and where it comes from."""

from __future__ import annotations

import hashlib
import importlib.metadata
import logging
import platform
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import training_src
from policy_runtime.bundle import POLICY, Bundle, Interface, OnnxPart
from policy_runtime.session import OnnxPolicy
from policy_runtime.spec import GuardrailSpec
from training_src.presets import Preset
from training_src.problem import TraceLoad
from training_src.toolkits import TrainedPolicy

PARITY_OBSERVATIONS = 10_000
PARITY_TOLERANCE = 1e-4
_LIBRARIES = ("gymnasium", "numpy", "onnxruntime", "stable-baselines3", "torch")


def export_onnx(module: nn.Module, observation_size: int) -> bytes:
    """Export a policy and check that onnxruntime computes what torch computes.

    Args:
        module: maps ``(batch, observation_size)`` to ``(batch, actions)``, float32.
        observation_size: number of features.

    Returns:
        An ONNX model with the input ``observation`` and the output ``scores``, weights embedded.

    Raises:
        RuntimeError: the two differ by more than ``PARITY_TOLERANCE`` on random observations.
    """
    module = module.to("cpu").eval()
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the exporter's own dependencies
            program = torch.onnx.export(
                module,
                (torch.zeros(2, observation_size),),
                input_names=["observation"],
                output_names=["scores"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                dynamo=True,
                verbose=False,
            )
    finally:
        exporter.setLevel(level)
    assert program is not None
    model: bytes = program.model_proto.SerializeToString()

    shape = (PARITY_OBSERVATIONS, observation_size)
    observations = 2 * np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    with torch.no_grad():
        expected = module(torch.as_tensor(observations)).numpy()
    difference = float(np.abs(OnnxPolicy(model)(observations) - expected).max())
    scale = max(1.0, float(np.abs(expected).max()))
    if not difference <= PARITY_TOLERANCE * scale:
        raise RuntimeError(f"the exported policy differs from the trained one by {difference:.3g}")
    return model


def make_bundle(preset: Preset, trained: TrainedPolicy) -> Bundle:
    """The bundle of a trained policy.

    Args:
        preset: what was run, resolved.
        trained: what came out.
    """
    model = export_onnx(trained.module, trained.observation_size)
    problem = preset.problem()
    specs: dict[str, Any] = {}
    if problem is None:
        specs["kind"] = "generic"
        specs["interface"] = Interface(
            observation_size=trained.observation_size,
            action_kind=trained.action_kind,
            action_size=trained.action_size,
        )
    else:
        specs["fleet"] = problem.fleet.spec()
        specs["features"] = problem.features()
        specs["actions"] = problem.actions()
        specs["guardrails"] = GuardrailSpec.fitted(problem.fleet.spec(), problem.action_steps)
    return Bundle(
        name=preset.name,
        version=f"{trained.steps}-{hashlib.sha256(model).hexdigest()[:8]}",
        policy=OnnxPart(),
        provenance=_provenance(preset, trained),
        files={POLICY: model, "preset.yaml": _portable(preset).to_yaml().encode()},
        **specs,
    )


def _portable(preset: Preset) -> Preset:
    """The preset without this machine's folders: a trace is named by its file name."""
    problem = preset.problem()
    if problem is None or not isinstance(problem.load, TraceLoad):
        return preset
    load = problem.load.model_copy(update={"path": Path(problem.load.path).name})
    return preset.with_problem(problem.model_copy(update={"load": load}))


def _provenance(preset: Preset, trained: TrainedPolicy) -> dict[str, Any]:
    provenance: dict[str, Any] = {
        "preset": preset.name,
        "seed": preset.budget.seed,
        "steps": trained.steps,
        "finished": trained.finished,
        "evaluation": dict(trained.evaluation),
        "learning_curve": [list(point) for point in trained.learning_curve],
        "code_version": training_src.__version__,
        "python": platform.python_version(),
        "libraries": {name: importlib.metadata.version(name) for name in _LIBRARIES},
    }
    problem = preset.problem()
    if problem is not None and isinstance(problem.load, TraceLoad):
        trace = Path(problem.load.path)
        provenance["trace"] = {"name": trace.name, "sha256": hashlib.sha256(trace.read_bytes()).hexdigest()}
    return provenance
