"""From a job's hyperparameters and a recorded load to the preset that is run."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from training_src.envs.trace import Trace, read_trace, scale_for, split_days
from training_src.errors import UserError
from training_src.presets import Preset, PresetError, load_preset, resolve
from training_src.problem import Problem, TraceLoad

DEFAULT_PRESET = "default"


def resolve_run(
    overrides: dict[str, str], trace_path: Path | None, base: Preset | None = None
) -> tuple[Preset, Trace | None]:
    """The preset that hyperparameters and a recorded load make, and the load.

    A trace is the file ``trace_path``, which replaces the problem's own load (``load_values`` and the like then say how
    it is read), or the one that the preset itself names. Unless ``fleet_throughput`` is given, a machine's throughput
    is chosen so that the 99.9th percentile of the training days is 40 machines, and the value of a request so that a
    busy machine earns what it earns in the preset: the problem keeps its scale whatever the trace's unit is.

    Args:
        overrides: hyperparameters; ``preset`` names the preset that the others change.
        trace_path: CSV of the load.
        base: the preset to change when ``overrides`` name none; ``default`` when absent.

    Raises:
        UserError: wrong hyperparameters, an unusable trace, or one for a preset that is not a scaling problem.
    """
    base = base or load_preset(DEFAULT_PRESET)
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
        raise UserError(
            f"load_part: {problem.load.part!r} cannot be chosen: training sees the first days alone, the others test"
        )
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


def assignment(text: str) -> tuple[str, str]:
    """Split a command line's ``NAME=VALUE``; raises ``UserError`` when it is not one."""
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise UserError(f"--set {text!r}: expected NAME=VALUE")
    return key, value


def job_parser(module: str, documentation: str) -> argparse.ArgumentParser:
    """The command line of a job: what stands for the container's folder and its hyperparameters.

    Args:
        module: that is run.
        documentation: its docstring, whose first line says what it does.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=documentation.partition("\n")[0])
    parser.add_argument("--root", type=Path, help="folder that stands for /opt/ml (default: $RL_ML_ROOT or /opt/ml)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a hyperparameter; wins over the file's"
    )
    return parser
