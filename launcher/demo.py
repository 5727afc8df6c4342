"""The whole workflow on one machine: train, compare with rules on held-out loads, draw, and say what comes next.

``make demo`` runs it on the simulated load, ``make demo TRACE=load.csv`` on a recorded one. It needs neither AWS nor
Docker. Everything is kept in one folder per preset and trace, so a second run reuses what is there.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from policy_runtime import read_bundle, write_bundle
from policy_runtime.errors import BundleError
from training_src.benchmark.compare import RULES_AS_THEY_COME, Contender, Result, advantage, evaluate, tune
from training_src.benchmark.picture import draw_comparison
from training_src.benchmark.rollout import REPORTING_SEEDS, TUNING_SEEDS
from training_src.envs.load import TraceProfile
from training_src.envs.trace import read_trace
from training_src.errors import UserError
from training_src.problem import Problem, TraceLoad
from training_src.train import assignment, resolve_run

DEFAULT_FOLDER = Path("build/demo")
Row = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the demonstration; exits with 2 and a message when the input is wrong."""
    options = _parser().parse_args(arguments)
    console = Console(highlight=False)
    console = console if console.is_terminal else Console(highlight=False, width=110)
    try:
        overrides = dict(assignment(text) for text in options.set)
        demonstrate(options.preset, options.trace, options.folder, overrides, console)
    except (UserError, BundleError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error


def demonstrate(
    preset_name: str, trace: Path | None, folder: Path, overrides: dict[str, str], console: Console
) -> None:
    """Train, compare, draw and report.

    Args:
        preset_name: name or file of the preset.
        trace: CSV of a recorded load; the preset's own load when absent.
        folder: results go to a folder of it, named after preset and trace.
        overrides: hyperparameters that change the preset.
        console: takes the report.

    Raises:
        UserError: wrong preset, hyperparameter or trace, or training failed.
    """
    settings = {"preset": preset_name, **overrides}
    preset, _ = resolve_run(settings, trace)
    problem = preset.problem()
    if problem is None:
        raise UserError(
            f"environment_id: {preset.environment.id} is not a scaling problem, so there are no rules to compare with; "
            "train it with python -m training_src.train"
        )
    digest = hashlib.sha256(preset.to_yaml().encode() + (trace.read_bytes() if trace else b"")).hexdigest()[:8]
    root = folder / "-".join([preset.name, *([trace.stem] if trace else []), digest])

    console.rule("Train", align="left")
    train(root, settings, trace)
    bundle = root / "model.tar.gz"
    write_bundle(read_bundle(root / "model"), bundle)

    console.rule("Compare on held-out loads", align="left")
    picture, figures = root / "load-and-capacity.png", root / "comparison.json"
    rows = earlier_rows(figures, bundle) if picture.exists() else None
    if rows is None:
        policy, rivals = compare(problem, preset.name, bundle, console)
        draw_comparison(picture, policy, rivals, root / "output" / "data" / "metrics.jsonl")
        rows = comparison_rows(policy, rivals)
        figures.write_text(json.dumps({"bundle": _sha256(bundle), "rows": rows}, indent=2) + "\n", encoding="utf-8")
    else:
        console.print(f"the same policy was compared before: {figures}")
    console.print(report_table(rows))
    console.print(verdict(rows, describe_loads(problem)))

    console.rule("Results", align="left")
    console.print(f"picture   {picture}\nbundle    {bundle}\nfigures   {figures}")
    console.print(
        "\nNext: open the picture; try your own load (make demo TRACE=load.csv) or another preset "
        "(make demo PRESET=documented);\nread docs/04-training-code.md to see what the bundle holds, and "
        "docs/03-presets.md to change the problem."
    )


def train(root: Path, settings: dict[str, str], trace: Path | None) -> None:
    """Run the training container's command in a folder; it goes on from the checkpoint that an earlier run left.

    Raises:
        UserError: training failed; it has printed why.
    """
    channel = root / "input" / "data" / "trace"
    if trace is not None:
        channel.mkdir(parents=True, exist_ok=True)
        shutil.copy2(trace, channel / f"{trace.stem}.csv")
    command = [sys.executable, "-m", "training_src.train", "--root", str(root)]
    command += [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    try:
        status = subprocess.run(command, check=False, env={**os.environ, "PYTHONUNBUFFERED": "1"}).returncode
    except KeyboardInterrupt:
        raise UserError("interrupted; run the same command again to go on from the last checkpoint") from None
    if status:
        raise UserError(f"training ended with exit status {status}; the reason is above")


def compare(problem: Problem, name: str, bundle: Path, console: Console) -> tuple[Result, list[Result]]:
    """Tune the rules on the tuning loads, then run everything on the reporting loads.

    On a trace, rules are tuned on the training days and everything is run on the rest, and days are the blocks that
    are compared.
    """
    tuning, reporting, seeds, block = evaluation_problems(problem)
    with _progress(console, "tuning the rules") as progress:
        tuned = tune(tuning, TUNING_SEEDS if seeds is REPORTING_SEEDS else seeds, progress)
    contenders = [Contender(name, bundle=bundle), *RULES_AS_THEY_COME, *tuned]
    with _progress(console, "running all on held-out loads") as progress:
        policy, *rivals = evaluate(contenders, reporting, seeds, block, progress)
    return policy, rivals


def evaluation_problems(problem: Problem) -> tuple[Problem, Problem, range, int | None]:
    """The problems to tune on and to report on, the seeds, and the steps of a block (None: whole episodes)."""
    if not isinstance(problem.load, TraceLoad):
        return problem, problem, REPORTING_SEEDS, None
    trace = read_trace(Path(problem.load.path), problem.fleet.step_seconds, problem.load.values)

    def replay(part: str) -> Problem:
        load = problem.load.model_copy(update={"part": part})
        assert isinstance(load, TraceLoad)
        return problem.model_copy(update={"load": load, "episode_steps": TraceProfile(load, trace).steps})

    # A replay is the same for every seed.
    return replay("tune"), replay("test"), range(1), problem.fleet.spec().steps_per_day


def comparison_rows(policy: Result, rivals: Sequence[Result]) -> list[Row]:
    """Everyone's figures for a day, the policy's first, with the paired difference of the policy to each rival."""
    rows = []
    for result in (policy, *rivals):
        row: Row = {
            "name": result.contender.label,
            "rule": result.contender.rule,
            "parameters": dict(result.contender.parameters),
            "blocks": len(result.summary.reward),
            "per_day": result.summary.per_day(),
        }
        if result is not policy:
            row["policy_earns_more_per_day"] = dataclasses.asdict(advantage(policy, result))
        rows.append(row)
    return rows


def earlier_rows(path: Path, bundle: Path) -> list[Row] | None:
    """The rows of an earlier comparison of the same bundle; None when there is none that can be used."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    if not isinstance(content, dict) or content.get("bundle") != _sha256(bundle):
        return None
    rows: list[Row] = content["rows"]
    return rows


def report_table(rows: Sequence[Row]) -> Table:
    """Everyone's figures for a day, best first."""
    table = Table(box=None, pad_edge=False, header_style="bold", title_justify="left")
    table.add_column("per day", no_wrap=True)
    for title in ("reward $", "cost $", "violation min", "machine-hours", "ordered", "policy is better by $ [95 %]"):
        table.add_column(title, justify="right")
    for row in sorted(rows, key=lambda row: -float(row["per_day"]["reward"])):
        day, gain = row["per_day"], row.get("policy_earns_more_per_day")
        mine = gain is None
        table.add_row(
            f"learned policy: {row['name']}" if mine else row["name"],
            f"{day['reward']:,.0f}",
            f"{day['cost']:,.0f}",
            f"{day['violation_minutes']:.2f}",
            f"{day['machine_hours']:,.0f}",
            f"{day['machines_ordered']:,.0f}",
            "" if gain is None else "{mean:+,.0f} [{low:+,.0f}, {high:+,.0f}]".format(**gain),
            style="bold cyan" if mine else None,
        )
    return table


def verdict(rows: Sequence[Row], loads: str) -> str:
    """In words: whom the policy beats, and whom it does not."""
    groups: dict[str, list[str]] = {"beats": [], "loses to": [], "cannot be told apart from": []}
    for row in rows[1:]:
        gain = row["policy_earns_more_per_day"]
        verb = "beats" if gain["low"] > 0 else "loses to" if gain["high"] < 0 else "cannot be told apart from"
        groups[verb].append(row["name"])
    lines = [f"\nOn {loads}, at 95 % confidence, the learned policy with its guardrails"]
    lines += [f"  {verb} {', '.join(names)}" for verb, names in groups.items() if names]
    return "\n".join(lines) + ".\nThe rules have no guardrails and the targets of the tuned ones come from a grid."


def describe_loads(problem: Problem) -> str:
    """The held-out loads in words."""
    if isinstance(problem.load, TraceLoad):
        return "the test days of the trace"
    return f"{len(REPORTING_SEEDS)} held-out episodes"


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextmanager
def _progress(console: Console, title: str) -> Iterator[Callable[[int, int], None]]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m launcher.demo", description=__doc__.partition("\n")[0])
    parser.add_argument("--preset", default="default", help="name or YAML file of a preset (default: default)")
    parser.add_argument("--trace", type=Path, help="CSV with the columns timestamp,value: your own load")
    parser.add_argument("--folder", type=Path, default=DEFAULT_FOLDER, help=f"where results go ({DEFAULT_FOLDER})")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a hyperparameter")
    return parser


if __name__ == "__main__":
    main()
