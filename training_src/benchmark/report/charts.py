"""The charts of the page as plain data for plotly.js, with colours as names of the page's CSS variables.

Arrays travel in plotly's own compact form, base64 of their bytes. Plotly reads a little HTML in texts, so names that
come from outside are escaped.
"""

from __future__ import annotations

import base64
import dataclasses
import html
import math
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt

from training_src.benchmark.document import Document, LearningPoint, PolicyResult, Role
from training_src.benchmark.report.days import Days
from training_src.benchmark.report.scales import is_wide, log_ticks, square_root_ticks
from training_src.benchmark.report.words import number
from training_src.benchmark.rollout import Record

Chart = dict[str, Any]

MOST_DAYS = 14
"""Days of load and machines in the page: more would make it slow and large."""

_DASHES: dict[Role, str] = {"candidate": "solid", "rule": "solid", "incumbent": "dot", "optimum": "6px,3px"}
_SYMBOLS: dict[Role, str] = {"candidate": "circle", "rule": "circle", "incumbent": "diamond", "optimum": "star"}
_SIZES = {"Candidate": 15, "Optimum": 14, "Best rule": 14, "Incumbent": 11}
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


@dataclasses.dataclass(frozen=True)
class Shown:
    """A policy that is drawn minute by minute.

    Attributes:
        title: its part in the comparison.
        result: its figures.
        record: what happened.
    """

    title: str
    result: PolicyResult
    record: Record

    @property
    def colour(self) -> str:
        """For lines and markers."""
        return f"var(--{self.result.role})"

    def machine_hours(self, steps: slice) -> float:
        """Paid for by the first fleet in some steps."""
        fleet = self.record.problem.fleet
        billed = self.record.machines if fleet.billing == "request" else self.record.active
        return float(billed[steps, 0].sum(dtype=np.float64)) * fleet.step_seconds / 3600


def shown_policies(document: Document, records: Mapping[str, Record]) -> list[Shown]:
    """The policies that are drawn minute by minute, the most important first.

    Raises:
        ValueError: one of the records is missing.
    """
    titles = {
        "candidate": "Candidate",
        document.gate.best_rule: "Best rule",
        "optimum": "Optimum",
        "incumbent": "Incumbent",
    }
    if missing := [id for id in titles if id not in records]:
        raise ValueError(f"no record of {missing[0]!r}: the report draws {', '.join(titles)}")
    return [Shown(title, document.policy(id), records[id]) for id, title in titles.items()]


def load_chart(shown: Sequence[Shown], days: Days) -> Chart:
    """Load against capacity of the first load, over at most ``MOST_DAYS`` days around the most eventful one."""
    record = shown[0].record
    eventful = days.eventful(record)
    first = max(0, min(eventful - MOST_DAYS // 2, days.count - MOST_DAYS))
    chosen = range(first, min(first + MOST_DAYS, days.count))
    steps = slice(days.steps_of(chosen[0]).start, days.steps_of(chosen[-1]).stop)
    # Plotly takes a date without offset for UTC, and steps of a date axis are in milliseconds.
    start = (days.start + timedelta(seconds=steps.start * days.step_seconds)).replace(tzinfo=None).isoformat()
    grid = {"x0": start, "dx": days.step_seconds * 1000}
    load = record.load[steps, 0]
    data: list[Chart] = [
        {
            **grid,
            "name": "Load, in machines",
            "y": _packed(load / record.problem.fleet.throughput),
            "customdata": _packed(load),
            "hovertemplate": "%{y:,.1f} machines (%{customdata:,.0f} requests)<extra>Load</extra>",
            "mode": "lines",
            "fill": "tozeroy",
            "fillcolor": "var(--load-fill)",
            "line": {"color": "var(--load)", "width": 1},
            "legendrank": 1,
        }
    ]
    for rank, policy in reversed(list(enumerate(shown))):
        data += _capacity(policy, steps, grid, days, rank)
    any_violation: Chart = {
        "name": "Minute in violation",
        "x": [None],
        "y": [None],
        "mode": "markers",
        "marker": {"color": "var(--violation)", "size": 7},
        "hoverinfo": "skip",
        "legendrank": 50,
    }
    axis = {
        "type": "date",
        "tickformatstops": [
            {"dtickrange": [None, 43_200_000], "value": "%H:%M\n%a %-d %b %Y" if days.dated else "%H:%M\nday %-j"},
            {"dtickrange": [43_200_000, None], "value": "%-d %b" if days.dated else "day %-j"},
        ],
        "hoverformat": "%a %-d %b %Y, %H:%M UTC" if days.dated else "day %-j, %H:%M",
        "minallowed": start,
        "maxallowed": _iso(days, steps.stop),
    }
    layout = _layout("machines", axis)
    layout["hovermode"] = "x unified"
    layout["yaxis"] |= {"rangemode": "tozero", "fixedrange": True}
    return {
        "data": [*data, any_violation],
        "layout": layout,
        "height": 430,
        "days": [_day(shown, days, day) for day in chosen],
        "opens": eventful - first,
    }


def _capacity(policy: Shown, steps: slice, grid: Chart, days: Days, rank: int) -> list[Chart]:
    """The steps of one policy's active machines, and its minutes in violation."""
    record = policy.record
    active, machines, load, failed = (
        values[steps, 0] for values in (record.active, record.machines, record.load, record.failed)
    )
    share = 100 * failed / np.maximum(load, 1e-9)
    group: Chart = {
        "legendgroup": policy.result.role,
        "visible": "legendonly" if policy.result.role == "incumbent" else True,
    }
    bad = np.flatnonzero(record.violation[steps, 0])
    return [
        {
            **grid,
            **group,
            "name": policy.title,
            "y": _packed(active),
            "customdata": _packed(np.stack([machines - active, share], axis=1)),
            "hovertemplate": "%{y:,.0f} active, %{customdata[0]:,.0f} pending, %{customdata[1]:.1f} % failed"
            f"<extra>{policy.title}</extra>",
            "mode": "lines",
            "line": {
                "shape": "hv",
                "color": policy.colour,
                "width": 2 if policy.result.role == "candidate" else 1.5,
                "dash": _DASHES[policy.result.role],
            },
            "legendrank": 10 + rank,
        },
        {
            **group,
            "x": [_iso(days, steps.start + int(step)) for step in bad],
            "y": _packed(active[bad]),
            "mode": "markers",
            "marker": {"color": "var(--violation)", "size": 6, "line": {"color": policy.colour, "width": 1}},
            "hoverinfo": "skip",
            "showlegend": False,
        },
    ]


def _day(shown: Sequence[Shown], days: Days, day: int) -> Chart:
    """A day's limits, highest value and figures, for the buttons and the line of figures."""
    steps = days.steps_of(day)
    minutes = days.step_seconds / 60
    record = shown[0].record
    return {
        "label": days.label(day),
        "from": _iso(days, steps.start),
        "to": _iso(days, steps.stop),
        "top": max(
            float(record.load[steps, 0].max()) / record.problem.fleet.throughput,
            *(float(policy.record.active[steps, 0].max()) for policy in shown),
        ),
        "machineHours": [policy.machine_hours(steps) for policy in shown],
        "violationMinutes": [float(policy.record.violation[steps, 0].sum()) * minutes for policy in shown],
    }


def violations_chart(shown: Sequence[Shown], days: Days) -> Chart:
    """Violation minutes by day and hour of all loads, one choice for each policy."""
    labels, ticks = _rows(days, shown[0].record.load.shape[1])
    choices = [_choice(policy, days, labels) for policy in shown]
    most = max(float(np.nanmax(values)) for _, values in choices)
    row = min(22.0, max(4.0, 520 / len(labels)))
    layout = _layout("", {})
    layout["xaxis"] = {
        **layout["xaxis"],
        "title": {
            **layout["xaxis"]["title"],
            "text": "hour of the day (UTC)" if days.dated else "hour since the start of the day",
        },
        "tickvals": list(range(0, 24, 3)),
        "showgrid": False,
        "ticks": "",
        "fixedrange": True,
    }
    layout["yaxis"] |= {"type": "category", "autorange": "reversed", "tickvals": ticks, "showgrid": False}
    layout["yaxis"] |= {"ticktext": [tick.partition(",")[0] for tick in ticks], "fixedrange": True}
    heatmap = {
        "type": "heatmap",
        "x": list(range(24)),
        "y": labels,
        "z": _packed(choices[0][1]),
        "zmin": 0,
        "zmax": max(most, 1.0),
        "xgap": 1,
        "ygap": 1 if row >= 6 else 0,
        # Nothing is a colour of its own: a single violation must be seen.
        "colorscale": [[0, "var(--heat-none)"], [1e-6, "var(--heat-few)"], [1, "var(--heat-many)"]],
        "colorbar": {
            "orientation": "h",
            "title": {"text": "minutes", "side": "right", "font": {"color": "var(--muted)"}},
            "tickfont": {"color": "var(--muted)"},
            "nticks": 5,
            "thickness": 8,
            "outlinewidth": 0,
            "len": 0.5,
            "x": 1,
            "xanchor": "right",
            "xpad": 0,
            "ypad": 6,
            "y": 1,
            "yanchor": "bottom",
        },
        "hovertemplate": "%{y}, %{x}:00: %{z:,.0f} violation minutes<extra></extra>",
    }
    return {
        "data": [heatmap],
        "layout": layout,
        "height": round(row * len(labels)) + 90,
        "choices": [
            {"title": policy.title, "text": text, "z": _packed(values)}
            for policy, (text, values) in zip(shown, choices, strict=True)
        ],
    }


def _rows(days: Days, loads: int) -> tuple[list[str], list[str]]:
    """The names of all rows, load by load, and those that get a tick."""
    names = [days.label(day) for day in range(days.count)]
    if loads == 1:
        return names, names[:: max(1, math.ceil(len(names) / 16))]
    rows = [f"episode {load + 1}, {name}" for load in range(loads) for name in names]
    return rows, rows[:: len(names) * max(1, math.ceil(loads / 20))]


def _choice(policy: Shown, days: Days, labels: Sequence[str]) -> tuple[str, npt.NDArray[np.float32]]:
    """A sentence on a policy's violations, and its violation minutes by row and hour; NaN where nothing was run."""
    violation = policy.record.violation
    seconds = days.into_first_day + np.arange(len(violation)) * days.step_seconds
    hours = seconds // 3600
    cells = np.zeros((days.count * 24, violation.shape[1]))
    covered = np.zeros(days.count * 24, np.bool_)
    np.add.at(cells, hours, violation * (days.step_seconds / 60))
    covered[hours] = True
    values = np.where(covered[:, None], cells, np.nan).T.reshape(len(labels), 24)
    by_row = np.nansum(values, axis=1)
    total, worst = float(by_row.sum()), int(by_row.argmax())
    text = f"{number(total, 0)} violation minutes on {int((by_row > 0).sum()):,} of {len(labels):,} days"
    if total:
        text += f"; the worst is {labels[worst]}, with {number(float(by_row[worst]), 0)}"
    return text, values.astype(np.float32)


def groups(document: Document) -> list[tuple[str, list[PolicyResult]]]:
    """The policies by what they are, the least important first."""
    best = document.gate.best_rule
    rules = [policy for policy in document.policies if policy.role == "rule" and policy.id != best]
    named = {"Incumbent": "incumbent", "Optimum": "optimum", "Best rule": best, "Candidate": "candidate"}
    found = [
        ("Rule, untuned", [policy for policy in rules if not policy.tuned]),
        ("Rule, tuned", [policy for policy in rules if policy.tuned]),
        *((title, [document.policy(id)]) for title, id in named.items()),
    ]
    return [(title, policies) for title, policies in found if policies]


def is_hollow(policy: PolicyResult) -> bool:
    """Whether its marker is hollow: a rule that was not tuned."""
    return policy.role == "rule" and not policy.tuned


def importance(policy: PolicyResult, document: Document) -> int:
    """Whose label goes first where not all fit: low numbers do."""
    if policy.role == "rule":
        return 1 if policy.id == document.gate.best_rule else 4 if policy.tuned else 5
    return {"candidate": 0, "optimum": 2, "incumbent": 3}[policy.role]


def costs_chart(document: Document) -> Chart:
    """Cost against violations, one marker for each policy."""
    costs = [policy.per_day.cost for policy in document.policies]
    violations = [policy.per_day.violation_minutes for policy in document.policies]
    compressed = is_wide(violations, floor=1.0)
    data = []
    for rank, (title, policies) in enumerate(groups(document)):
        role = policies[0].role
        hollow = is_hollow(policies[0])
        minutes = [policy.per_day.violation_minutes for policy in policies]
        data.append(
            {
                "name": title,
                "x": [math.sqrt(value) for value in minutes] if compressed else minutes,
                "y": [policy.per_day.cost for policy in policies],
                "customdata": minutes,
                "text": [html.escape(policy.label) for policy in policies],
                "hovertemplate": "%{hovertext}<br>%{y:$,.0f} a day<br>%{customdata:,.2f} violation minutes a day"
                f"<extra>{title}</extra>",
                "hovertext": [html.escape(policy.label) for policy in policies],
                "meta": [importance(policy, document) for policy in policies],
                "mode": "markers+text",
                "textposition": "middle right",
                "cliponaxis": False,
                "marker": {
                    "symbol": _SYMBOLS[role] + ("-open" if hollow else ""),
                    "size": _SIZES.get(title, 10),
                    "color": f"var(--{role})",
                    "line": {"width": 2 if hollow else 0, "color": f"var(--{role})"},
                },
                "legendrank": 10 - rank,
            }
        )
    end = (math.sqrt(max(violations)) if compressed else max(violations)) or 1.0
    axis: Chart = {"title": {"text": "violation minutes a day"}, "range": [-0.03 * end, 1.07 * end]}
    if compressed:
        ticks = square_root_ticks(violations)
        axis |= {"tickvals": [math.sqrt(tick) for tick in ticks], "ticktext": [f"{tick:g}" for tick in ticks]}
        axis["title"]["text"] += " (square-root scale)"
    layout = _layout("cost a day", axis)
    if min(costs) > 0 and is_wide(costs):
        ticks = log_ticks(costs)
        layout["yaxis"] |= {"type": "log", "tickvals": ticks, "ticktext": [f"${tick:,.10g}" for tick in ticks]}
        layout["yaxis"]["title"]["text"] += " (logarithmic scale)"
    else:
        layout["yaxis"] |= {"tickprefix": "$", "tickformat": ",~r"}
    return {"data": data, "layout": layout, "height": 480}


def learning_chart(points: Sequence[LearningPoint]) -> Chart:
    """The mean evaluation reward over training."""
    curve = [point for point in points if not point.exported]
    exported = [point for point in points if point.exported]
    hover = "%{y:$,.0f} after %{x:,} steps<extra></extra>"
    common = {"hovertemplate": hover, "cliponaxis": False}
    data: list[Chart] = [
        {
            **common,
            "name": "During training",
            "x": [point.steps for point in curve],
            "y": [point.reward for point in curve],
            "mode": "lines+markers",
            "line": {"color": "var(--candidate)", "width": 2},
            "marker": {"size": 6},
        }
    ]
    if exported:
        data.append(
            {
                **common,
                "name": "As exported",
                "x": [point.steps for point in exported],
                "y": [point.reward for point in exported],
                "mode": "markers",
                "marker": {"symbol": "star", "size": 16, "color": "var(--candidate)"},
            }
        )
    axis = {"title": {"text": "environment steps"}, "rangemode": "tozero", "tickformat": ".2~s"}
    layout = _layout("reward of an episode", axis)
    layout["yaxis"] |= {"tickprefix": "$", "tickformat": ",~r"}
    return {"data": data, "layout": layout, "height": 330}


def _layout(title: str, xaxis: Chart) -> Chart:
    axis = {
        "gridcolor": "var(--line)",
        "linecolor": "var(--line)",
        "zerolinecolor": "var(--line)",
        "tickfont": {"color": "var(--muted)"},
        "automargin": True,
    }
    quiet = {"font": {"size": 12, "color": "var(--muted)"}, "standoff": 8}
    return {
        "margin": {"l": 56, "r": 16, "t": 8, "b": 44},
        "paper_bgcolor": "rgba(0, 0, 0, 0)",
        "plot_bgcolor": "rgba(0, 0, 0, 0)",
        "font": {"family": _FONT, "size": 12, "color": "var(--ink)"},
        "hoverlabel": {"bgcolor": "var(--surface)", "bordercolor": "var(--line)", "font": {"color": "var(--ink)"}},
        "legend": {
            "orientation": "h",
            "x": 0,
            "y": 1.02,
            "yanchor": "bottom",
            "bgcolor": "rgba(0, 0, 0, 0)",
        },
        "modebar": {"bgcolor": "rgba(0, 0, 0, 0)", "color": "var(--muted)", "activecolor": "var(--ink)"},
        "xaxis": {**axis, **xaxis, "title": {**quiet, **xaxis.get("title", {})}},
        "yaxis": {**axis, "title": {**quiet, "text": title}},
        # Keeps what the reader chose, zoom and visible policies, when the colours change.
        "uirevision": "kept",
    }


def _packed(values: npt.NDArray[Any]) -> Chart:
    """An array in plotly's compact form."""
    array = np.ascontiguousarray(values, "<f4")
    packed: Chart = {"dtype": "f4", "bdata": base64.b64encode(array.tobytes()).decode()}
    if array.ndim > 1:
        packed["shape"] = ", ".join(map(str, array.shape))
    return packed


def _iso(days: Days, step: int) -> str:
    """The time of a step, as plotly takes it."""
    return (days.start + timedelta(seconds=step * days.step_seconds)).replace(tzinfo=None).isoformat()
