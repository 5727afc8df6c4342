"""One picture of a comparison: load against capacity, learning curve, cost against violations."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from training_src.benchmark.compare import Result
from training_src.benchmark.rollout import Record

LOAD, POLICY, RIVAL, BAD = "#4a5568", "#0b7285", "#e8590c", "#c92a2a"
RULE_COLOURS = ("#e8590c", "#6741d9", "#2f9e44", "#c2255c", "#e0a800", "#495057")


def draw_comparison(path: Path, policy: Result, rivals: Sequence[Result], training: Path) -> None:
    """Draw a comparison.

    Args:
        path: PNG to write.
        policy: the learned policy.
        rivals: the rules.
        training: ``metrics.jsonl`` of the training run.
    """
    figure = Figure(figsize=(13, 8.5), dpi=110, layout="constrained", facecolor="white")
    grid = figure.add_gridspec(3, 3, height_ratios=(1, 1, 1.15), width_ratios=(1, 1, 0.42))
    best = min(rivals, key=lambda result: float(result.summary.cost.mean()))
    first, last = eventful_day(policy.lane)
    top, middle = figure.add_subplot(grid[0, :]), figure.add_subplot(grid[1, :])
    middle.sharex(top)
    middle.sharey(top)
    _draw_day(top, policy, f"learned policy: {policy.contender.name}", POLICY, first, last)
    _draw_day(middle, best, f"best rule: {best.contender.label}", RIVAL, first, last)
    machines = max(float(result.lane.active[first:last].max()) for result in (policy, best))
    load = float(policy.lane.load[first:last].max()) / policy.lane.problem.fleet.throughput
    top.set_ylim(0, 1.2 * max(machines, load, 1.0))
    top.tick_params(labelbottom=False)
    middle.set_xlabel("hour of the day shown (the one with the steepest rise of the first load)")
    _draw_learning(figure.add_subplot(grid[2, 0]), training)
    _draw_costs(figure.add_subplot(grid[2, 1]), figure.add_subplot(grid[2, 2]), policy, rivals)
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25, linewidth=0.6)
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_png(path)  # type: ignore[no-untyped-call]


def eventful_day(record: Record) -> tuple[int, int]:
    """First and last step of the day in which the load of the first fleet rises most within ten steps."""
    day = record.problem.fleet.spec().steps_per_day
    days = max(1, len(record.load) // day)
    load = record.load[:, 0]
    rises = [float((part[10:] - part[:-10]).max(initial=0.0)) for part in np.array_split(load[: days * day], days)]
    first = int(np.argmax(rises)) * day
    return first, min(first + day, len(load))


def _draw_day(axes: Axes, result: Result, title: str, colour: str, first: int, last: int) -> None:
    record, throughput = result.lane, result.lane.problem.fleet.throughput
    hours = np.arange(last - first) * record.problem.fleet.step_seconds / 3600
    load = record.load[first:last, 0] / throughput
    active, violation = record.active[first:last, 0], record.violation[first:last, 0]
    axes.fill_between(hours, load, color=LOAD, alpha=0.18, linewidth=0)
    axes.plot(hours, load, color=LOAD, linewidth=0.9, label="load, in machines")
    axes.step(hours, active, where="post", color=colour, linewidth=1.5, label="active machines")
    if violation.any():
        axes.plot(hours[violation], load[violation], ".", color=BAD, markersize=5, label="minute in violation")
    machine_hours = float(record.machines[first:last].sum()) * record.problem.fleet.step_seconds / 3600
    minutes = float(violation.sum()) * record.problem.fleet.step_seconds / 60
    axes.set_title(
        f"{title} ({machine_hours:,.0f} machine-hours, {minutes:.0f} violation minutes)", loc="left", fontsize=11
    )
    axes.set_ylabel("machines")
    axes.set_xlim(0, hours[-1] if len(hours) > 1 else 1)
    axes.legend(loc="upper right", ncols=3, fontsize=9, framealpha=0.8, edgecolor="none")


def _draw_learning(axes: Axes, training: Path) -> None:
    axes.set_title("learning curve (tuning loads, without guardrails)", loc="left", fontsize=11)
    lines = [json.loads(line) for line in training.read_text(encoding="utf-8").splitlines()]
    points = [(line["steps"] / 1e6, line["eval_reward_mean"]) for line in lines if "eval_reward_mean" in line]
    # A second evaluation at the last step is that of the best policy with its head start for "keep".
    exported = points.pop() if len(points) > 1 and points[-1][0] == points[-2][0] else None
    if points:
        axes.plot(*zip(*points, strict=True), "o-", color=POLICY, markersize=4)
    if exported:
        axes.plot(*exported, "*", color=POLICY, markersize=14, linestyle="none", label="as exported")
        axes.legend(loc="lower right", frameon=False, fontsize=9)
    axes.set_xlabel("million environment steps")
    axes.set_ylabel("reward of an episode, $")


def _draw_costs(axes: Axes, legend: Axes, policy: Result, rivals: Sequence[Result]) -> None:
    axes.set_title("cost against violations (held-out loads; lower left is better)", loc="left", fontsize=11)
    rules = list(dict.fromkeys(result.contender.rule for result in rivals))
    for result in rivals:
        day, contender = result.summary.per_day(), result.contender
        colour = RULE_COLOURS[rules.index(contender.rule) % len(RULE_COLOURS)]
        face = colour if contender.tuned else "white"
        axes.plot(day["violation_minutes"], day["cost"], "o", color=colour, markerfacecolor=face, label=contender.label)
    day = policy.summary.per_day()
    axes.plot(day["violation_minutes"], day["cost"], "*", color=POLICY, markersize=16, label="learned policy")
    legend.set_axis_off()
    legend.legend(*axes.get_legend_handles_labels(), loc="center left", borderaxespad=0, frameon=False, fontsize=9)
    axes.set_xlabel("violation minutes a day")
    axes.set_ylabel("cost a day, $")
    axes.margins(0.1)
