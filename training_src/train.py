"""Train a policy under SageMaker's training container contract.

Hyperparameters name a preset and change it; the model folder receives the policy bundle. Run it in a container as it
is, or on any machine with a folder for ``/opt/ml``::

    python -m training_src.train --root build/training --set preset=smoke --set seed=7
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from policy_runtime.bundle import write_bundle_folder
from training_src.errors import UserError
from training_src.export import make_bundle
from training_src.hyperparameters import assignment, job_parser, resolve_run
from training_src.sagemaker_io import Container, StopSignal
from training_src.toolkits import toolkit
from training_src.training_log import TrainingLog


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


def _add_source(given: Path | None, default: Path) -> None:
    """Make the user's own modules importable."""
    folder = given or default
    if given is not None and not given.is_dir():
        raise UserError(f"--source-dir: {given} is not a folder")
    if folder.is_dir():
        sys.path.insert(0, str(folder.resolve()))


def _parser() -> argparse.ArgumentParser:
    parser = job_parser("training_src.train", __doc__)
    parser.add_argument("--source-dir", type=Path, help="folder with your own environments (default: ROOT/code)")
    return parser


if __name__ == "__main__":
    main()
