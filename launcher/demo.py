"""The whole workflow on one machine: train, evaluate on held-out loads, report, and say what comes next.

``make demo`` runs it on the simulated load, ``make demo TRACE=load.csv`` on a recorded one. It needs neither AWS nor
Docker: it runs the training container's commands in folders. Everything is kept in one folder per preset and trace, so
a second run reuses what is there.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

import training_src
from policy_runtime import read_bundle, write_bundle
from policy_runtime.errors import BundleError
from training_src.benchmark.document import Document, PolicyResult
from training_src.benchmark.report import words
from training_src.errors import UserError
from training_src.hyperparameters import assignment, resolve_run

DEFAULT_FOLDER = Path("build/demo")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the demonstration; exits with 2 and a message when the input is wrong."""
    options = _parser().parse_args(arguments)
    console = Console(highlight=False)
    console = console if console.is_terminal else Console(highlight=False, width=130)
    try:
        overrides = dict(assignment(text) for text in options.set)
        demonstrate(options.preset, options.trace, options.folder, overrides, console)
    except (UserError, BundleError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error


def demonstrate(
    preset_name: str, trace: Path | None, folder: Path, overrides: dict[str, str], console: Console
) -> None:
    """Train, evaluate and report.

    Args:
        preset_name: name or file of the preset.
        trace: CSV of a recorded load; the preset's own load when absent.
        folder: results go to a folder of it, named after preset and trace.
        overrides: hyperparameters that change the preset.
        console: takes the report.

    Raises:
        UserError: wrong preset, hyperparameter or trace, or training or evaluation failed.
    """
    settings = {"preset": preset_name, **overrides}
    preset, _ = resolve_run(settings, trace)
    if preset.problem() is None:
        raise UserError(
            f"environment_id: {preset.environment.id} is not a scaling problem, so there are no rules to compare with; "
            "train it with python -m training_src.train"
        )
    digest = hashlib.sha256(preset.to_yaml().encode() + (trace.read_bytes() if trace else b"")).hexdigest()[:8]
    root = folder / "-".join([preset.name, *([trace.stem] if trace else []), digest])
    training, evaluation = root / "training", root / "evaluation"

    console.rule("Train", align="left")
    _give(training, "trace", trace)
    _run("training", ["training_src.train", "--root", str(training)], settings)
    bundle = root / "model.tar.gz"
    write_bundle(read_bundle(training / "model"), bundle)

    console.rule("Evaluate on held-out loads", align="left")
    output = evaluation / "output" / "data"
    document = earlier_document(output / "evaluation.json", bundle)
    if document is None:
        _give(evaluation, "trace", trace)
        _give(evaluation, "checkpoint", bundle)
        _run("evaluation", ["training_src.evaluate", "--root", str(evaluation)], {"incumbent": "builtin"})
        document = Document.model_validate_json((output / "evaluation.json").read_bytes())
    else:
        console.print(f"the same policy was evaluated before: {output / 'evaluation.json'}")
    console.print(results_table(document))
    console.print("\n" + "\n".join([f"{words.headline(document)}.", *words.verdict(document)]))

    console.rule("Results", align="left")
    console.print(
        f"report    {output / 'report.html'}\nbundle    {bundle}\nfigures   {output / 'evaluation.json'}, "
        f"{output / 'decisions.csv'}"
    )
    console.print(
        "\nNext: open the report in a browser; try your own load (make demo TRACE=load.csv) or another preset "
        "(make demo PRESET=documented);\nask the policy for decisions over HTTP "
        f"(.venv/bin/rl serve --bundle {bundle}, docs/08-deployment.md);\nread docs/07-evaluation.md to see how "
        "policies are compared, and docs/03-presets.md to change the problem."
    )


def _give(root: Path, channel: str, file: Path | None) -> None:
    """Put a file on an input channel."""
    if file is not None:
        folder = root / "input" / "data" / channel
        folder.mkdir(parents=True, exist_ok=True)
        # The channel's reader goes by the suffix, whatever the user's file is called.
        shutil.copy2(file, folder / (f"{file.stem}.csv" if channel == "trace" else file.name))


def _run(what: str, module: list[str], settings: dict[str, str]) -> None:
    """Run a command of the training container; training goes on from the checkpoint that an earlier run left.

    Raises:
        UserError: it failed; it has printed why.
    """
    command = [sys.executable, "-m", *module]
    command += [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    try:
        status = subprocess.run(command, check=False, env={**os.environ, "PYTHONUNBUFFERED": "1"}).returncode
    except KeyboardInterrupt:
        raise UserError("interrupted; run the same command again to go on from where it was") from None
    if status:
        raise UserError(f"{what} ended with exit status {status}; the reason is above")


def earlier_document(path: Path, bundle: Path) -> Document | None:
    """The document of an earlier evaluation of the same bundle; None when there is none that can be used."""
    try:
        document = Document.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    same = document.candidate.digest == read_bundle(bundle).manifest()["digest"]
    same &= document.versions["this project"] == training_src.__version__
    return document if same and path.with_name("report.html").exists() else None


def results_table(document: Document) -> Table:
    """Everyone's figures for a day, cheapest first."""
    table = Table(box=None, pad_edge=False, header_style="bold", title_justify="left")
    table.add_column("per day", no_wrap=True)
    for title in ("cost $", "x optimum", "violation min", "machine-hours", "actions", "gain over it $ [95 %]"):
        table.add_column(title, justify="right", no_wrap=True)
    for policy in sorted(document.policies, key=lambda policy: policy.per_day.cost):
        day, gain, ratio = policy.per_day, policy.candidate_gain, policy.cost_to_optimum
        table.add_row(
            name(policy),
            f"{day.cost:,.0f}",
            "" if ratio is None else f"{ratio:.2f}",
            f"{day.violation_minutes:.2f}",
            f"{day.machine_hours:,.0f}",
            f"{day.actions:,.0f}",
            "" if gain is None else f"{gain.mean:+,.0f} [{gain.low:+,.0f}, {gain.high:+,.0f}]",
            style={"candidate": "bold cyan", "optimum": "dim"}.get(policy.role),
        )
    return table


def name(policy: PolicyResult) -> str:
    """A policy's name in the table."""
    return {"candidate": "learned policy: ", "incumbent": "incumbent: "}.get(policy.role, "") + policy.label


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m launcher.demo", description=__doc__.partition("\n")[0])
    parser.add_argument("--preset", default="default", help="name or YAML file of a preset (default: default)")
    parser.add_argument("--trace", type=Path, help="CSV with the columns timestamp,value: your own load")
    parser.add_argument("--folder", type=Path, default=DEFAULT_FOLDER, help=f"where results go ({DEFAULT_FOLDER})")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a hyperparameter")
    return parser


if __name__ == "__main__":
    main()
