"""The report's pictures, for places that show no HTML."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from matplotlib.transforms import Bbox

from training_src.benchmark.document import Document, LearningPoint, PolicyResult
from training_src.benchmark.report.charts import Shown, groups, importance, is_hollow
from training_src.benchmark.report.days import Days
from training_src.benchmark.report.palette import LIGHT
from training_src.benchmark.report.scales import is_wide, log_ticks, square_root_ticks

_STYLE: dict[Any, Any] = {
    "font.size": 10,
    "text.color": LIGHT["ink"],
    "axes.labelcolor": LIGHT["muted"],
    "axes.edgecolor": LIGHT["line"],
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "grid.color": LIGHT["line"],
    "grid.linewidth": 0.8,
    "xtick.color": LIGHT["muted"],
    "ytick.color": LIGHT["muted"],
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "figure.dpi": 150,
}
_PLACES: tuple[
    tuple[tuple[float, float], Literal["left", "center", "right"], Literal["top", "center", "bottom"]], ...
] = (
    ((8, 0), "left", "center"),
    ((-8, 0), "right", "center"),
    ((0, 7), "center", "bottom"),
    ((0, -7), "center", "top"),
    ((6, 5), "left", "bottom"),
    ((6, -5), "left", "top"),
    ((-6, 5), "right", "bottom"),
    ((-6, -5), "right", "top"),
)
"""Where a label may be: offset from its marker in points, and which of its edges is there."""


def draw_pictures(document: Document, shown: Sequence[Shown], days: Days) -> dict[str, bytes]:
    """PNGs by file name; no learning curve where the document has none."""
    with mpl.rc_context(_STYLE):
        pictures = {
            "load-and-capacity.png": _png(_load_figure(shown, days)),
            "cost-and-violations.png": _png(_costs_figure(document)),
        }
        if document.learning:
            pictures["learning-curve.png"] = _png(_learning_figure(document.learning))
    return pictures


def _load_figure(shown: Sequence[Shown], days: Days) -> Figure:
    """The most eventful day: a panel each for candidate and best rule, with the optimum in both."""
    candidate, rule, optimum, _ = shown
    figure = Figure(figsize=(9, 6))
    day = days.eventful(candidate.record)
    panels = figure.subplots(2, 1, sharex=True, sharey=True)
    for axes, policy in zip(panels, (candidate, rule), strict=True):
        _draw_day(axes, policy, optimum, days, day)
    entries: dict[str, Artist] = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        entries |= dict(zip(map(str, labels), handles, strict=True))
    figure.legend(list(entries.values()), list(entries), loc="outside upper left", ncols=len(entries), fontsize=9)
    where = f"{days.label(day)}, UTC" if days.dated else f"{days.label(day)} of the first episode"
    panels[1].set_xlabel(f"{where}: the day on which the load rises most steeply")
    return figure


def _draw_day(axes: Axes, policy: Shown, optimum: Shown, days: Days, day: int) -> None:
    record, steps = policy.record, days.steps_of(day)
    since = (days.into_first_day + np.arange(steps.start, steps.stop) * days.step_seconds) / 3600 - 24 * day
    load = record.load[steps, 0] / record.problem.fleet.throughput
    active, bad = record.active[steps, 0], record.violation[steps, 0]
    colour = LIGHT[policy.result.role]
    axes.fill_between(since, load, color=LIGHT["load"], alpha=0.2, linewidth=0, label="load, in machines")
    axes.plot(since, load, color=LIGHT["load"], linewidth=0.7)
    other = optimum.record.active[steps, 0]
    axes.step(since, other, where="post", color=LIGHT["optimum"], linewidth=1, linestyle="--", label="optimum")
    axes.step(since, active, where="post", color=colour, linewidth=1.6, label=policy.title.lower())
    if bad.any():
        axes.plot(since[bad], active[bad], ".", color=LIGHT["violation"], markersize=7, label="minute in violation")
    hours = policy.machine_hours(steps)
    minutes = float(bad.sum()) * days.step_seconds / 60
    axes.set_title(
        f"{policy.title}: {_short(policy.result.label)} ({hours:,.0f} machine-hours, {minutes:,.0f} violation minutes)",
        parse_math=False,
    )
    axes.set(ylabel="machines", xlim=(0, 24), xticks=range(0, 25, 3))
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda hour, _: f"{hour:02.0f}:00"))


def _costs_figure(document: Document) -> Figure:
    """Cost against violations of every policy."""
    figure = Figure(figsize=(7.5, 4.8))
    axes = figure.add_subplot()
    for title, policies in groups(document):
        colour = LIGHT[policies[0].role]
        axes.plot(
            [policy.per_day.violation_minutes for policy in policies],
            [policy.per_day.cost for policy in policies],
            {"Incumbent": "D", "Optimum": "*"}.get(title, "o"),
            color=colour,
            markerfacecolor="white" if is_hollow(policies[0]) else colour,
            markersize={"Candidate": 10, "Best rule": 10, "Optimum": 13}.get(title, 7),
            label=title.lower(),
            clip_on=False,
        )
    costs = [policy.per_day.cost for policy in document.policies]
    violations = [policy.per_day.violation_minutes for policy in document.policies]
    axes.set(xlabel="violation minutes a day", ylabel="cost a day")
    axes.margins(0.08)
    if is_wide(violations, floor=1.0):
        axes.set_xscale("function", functions=(_signed_root, lambda root: np.sign(root) * root**2))
        axes.set_xticks(square_root_ticks(violations))
        axes.set_xlabel(f"{axes.get_xlabel()} (square-root scale)")
    if min(costs) > 0 and is_wide(costs):
        axes.set_yscale("log")
        axes.set_yticks(log_ticks(costs))
        axes.minorticks_off()
        axes.set_ylabel(f"{axes.get_ylabel()} (logarithmic scale)")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"${value:,.10g}"))
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside upper left", ncols=len(labels), fontsize=9)
    _label(axes, sorted(document.policies, key=lambda policy: importance(policy, document)))
    return figure


def _signed_root(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The square root, goes on below 0: the margin of the axis is there."""
    return np.asarray(np.sign(values) * np.sqrt(np.abs(values)))


def _label(axes: Axes, policies: Sequence[PolicyResult]) -> None:
    """Write names beside the markers, as many as fit, those of the first policies first."""
    canvas = FigureCanvasAgg(axes.get_figure(root=True))
    canvas.draw()  # type: ignore[no-untyped-call]
    renderer = canvas.get_renderer()  # type: ignore[no-untyped-call]
    points = [axes.transData.transform((policy.per_day.violation_minutes, policy.per_day.cost)) for policy in policies]
    taken = [Bbox.from_bounds(x - 8, y - 8, 16, 16) for x, y in points]
    for policy in policies:
        for offset, horizontal, vertical in _PLACES:
            label = axes.annotate(
                _short(policy.label),
                (policy.per_day.violation_minutes, policy.per_day.cost),
                offset,
                textcoords="offset points",
                horizontalalignment=horizontal,
                verticalalignment=vertical,
                fontsize=8,
                parse_math=False,
            )
            box = label.get_window_extent(renderer)
            inside = axes.bbox.contains(box.x0, box.y0) and axes.bbox.contains(box.x1, box.y1)
            if inside and not box.count_overlaps(taken):
                taken.append(box)
                break
            label.remove()


def _learning_figure(points: Sequence[LearningPoint]) -> Figure:
    """The mean evaluation reward over training."""
    figure = Figure(figsize=(7.5, 3.6))
    axes = figure.add_subplot()
    curve = [(point.steps / 1e6, point.reward) for point in points if not point.exported]
    exported = [(point.steps / 1e6, point.reward) for point in points if point.exported]
    colour = LIGHT["candidate"]
    if curve:
        axes.plot(*zip(*curve, strict=True), "o-", color=colour, markersize=4, label="during training")
    if exported:
        axes.plot(*zip(*exported, strict=True), "*", color=colour, markersize=14, label="as exported", clip_on=False)
    axes.set(xlabel="million environment steps", ylabel="mean reward of an episode")
    axes.set_xlim(left=0)
    axes.margins(y=0.1)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"${value:,.10g}"))
    figure.legend(loc="outside upper left", ncols=2, fontsize=9)
    return figure


def _short(label: str) -> str:
    """A label that leaves room for the rest."""
    return label if len(label) <= 48 else f"{label[:47]}…"


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)  # type: ignore[no-untyped-call]
    return buffer.getvalue()
