"""Train a policy under SageMaker's training container contract.

Hyperparameters name a preset and change it; the model folder receives the policy bundle. Run it in a container as it
is, or on any machine with a folder for ``/opt/ml``::

    python -m training_src.train --root build/training --set preset=smoke --set seed=7
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from policy_runtime.bundle import write_bundle_folder
from training_src.envs.trace import Trace, read_trace, scale_for, split_days
from training_src.errors import UserError
from training_src.export import make_bundle
from training_src.presets import Preset, PresetError, load_preset, resolve
from training_src.problem import Problem, TraceLoad
from training_src.sagemaker_io import Container, StopSignal
from training_src.toolkits import toolkit
from training_src.training_log import TrainingLog

DEFAULT_PRESET = "default"


def main(arguments: Sequence[str] | None = None) -> None:
    """Train as the command line and the container's hyperparameters say."""
    options = _parser().parse_args(arguments)
    container = Container(options.root)
    with container.reporting_failures():
        overrides = container.hyperparameters() | dict(assignment(text) for text in options.set)
        train(container, overrides, options.source_dir)


def train(container: Container, overrides: dict[str, str], source_dir: Path | None = None) -> None:
    """Train and write the bundle into the container's model folder.

    Args:
        container: the folders.
        overrides: hyperparameters as strings; ``preset`` names the preset that the others change.
        source_dir: a folder with the user's own environments; ``code`` in the container's root when absent.

    Raises:
        UserError: wrong hyperparameters, an unusable trace, an unusable folder.
    """
    _add_source(source_dir, container.root / "code")
    trace_path = container.channel_file("trace", [".csv"])
    preset, trace = resolve_run(overrides, trace_path)
    container.check_writable()
    with StopSignal() as signal, TrainingLog(container.output_dir) as log:
        log.note(f"preset {preset.name}: {preset.description}")
        if trace is not None:
            log.note(f"load {trace.report}")
        trained = toolkit(preset.algorithm.toolkit).train(preset, container.checkpoint_dir, log, lambda: bool(signal))
        write_bundle_folder(make_bundle(preset, trained), container.model_dir)
        if not trained.finished:
            log.note(f"stopped by {signal.received} after {trained.steps:,} steps: run again to go on from here")


def resolve_run(overrides: dict[str, str], trace_path: Path | None) -> tuple[Preset, Trace | None]:
    """The preset that hyperparameters and a recorded load make, and the load.

    A trace is the file ``trace_path``, which replaces the problem's own load (``load_values`` and the like then say how
    it is read), or the one that the preset itself names. Unless ``fleet_throughput`` is given, a machine's throughput
    is chosen so that the 99.9th percentile of the training days is 40 machines, and the value of a request so that a
    busy machine earns what it earns in the preset: the problem keeps its scale whatever the trace's unit is.

    Raises:
        UserError: wrong hyperparameters, an unusable trace, or one for a preset that is not a scaling problem.
    """
    base = load_preset(DEFAULT_PRESET)
    if trace_path is not None:
        choice = {key: value for key, value in overrides.items() if key in ("preset", "environment_id", "reward")}
        if resolve(base, choice).problem() is None:
            raise UserError("the environment is not a scaling problem: it takes no trace")
        overrides = overrides | {"load_kind": "trace", "load_path": json.dumps(str(trace_path))}
    preset = resolve(base, overrides)
    problem = preset.problem()
    if problem is None or not isinstance(problem.load, TraceLoad):
        return preset, None
    if problem.load.part != "train":
        raise UserError(f"load_part: {problem.load.part!r} is not for training: the other days must stay unseen")
    trace = read_trace(Path(problem.load.path), problem.fleet.step_seconds, problem.load.values)
    data = preset.data()
    data["environment"]["kwargs"] |= _fitted(problem, problem.load, trace, "fleet_throughput" not in overrides)
    try:
        return preset.with_data(data), trace
    except PresetError as error:
        raise UserError(f"{problem.load.path}: the load cannot be scaled to the fleet: {error}") from error


def _fitted(problem: Problem, load: TraceLoad, trace: Trace, scale: bool) -> dict[str, Any]:
    """Settings that fit a trace: the episode into the training days and, if wanted, the throughput to the load."""
    train_days, _ = split_days(trace, load.train_share)
    day = problem.fleet.spec().steps_per_day
    fleet, economics = problem.fleet.model_dump(), problem.economics.model_dump()
    if scale:
        factor = scale_for(trace, train_days * day) / fleet["throughput"]
        economics["success_value"] /= factor
        fleet["throughput_noise"] *= factor
        fleet["throughput"] *= factor
    # Windows begin after the first day, which stands in for the days before the trace (``TraceProfile``).
    windows = (train_days - min(1, train_days - 1)) * day
    return {"fleet": fleet, "economics": economics, "episode_steps": min(problem.episode_steps, max(2, windows // 2))}


def _add_source(given: Path | None, default: Path) -> None:
    """Make the user's own modules importable."""
    folder = given or default
    if given is not None and not given.is_dir():
        raise UserError(f"--source-dir: {given} is not a folder")
    if folder.is_dir():
        sys.path.insert(0, str(folder.resolve()))


def assignment(text: str) -> tuple[str, str]:
    """Split a command line's ``NAME=VALUE``; raises ``UserError`` when it is not one."""
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise UserError(f"--set {text!r}: expected NAME=VALUE")
    return key, value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training_src.train", description=__doc__.partition("\n")[0])
    parser.add_argument("--root", type=Path, help="folder that stands for /opt/ml (default: $RL_ML_ROOT or /opt/ml)")
    parser.add_argument("--source-dir", type=Path, help="folder with your own environments (default: ROOT/code)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a hyperparameter; wins over the file's"
    )
    return parser


if __name__ == "__main__":
    main()
