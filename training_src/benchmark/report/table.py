"""The table of all policies."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from training_src.benchmark.document import Document, PolicyResult
from training_src.benchmark.report.words import TIMES, interval, number, outcome, percent


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of figures.

    Attributes:
        title: above the column.
        help: what it means.
        value: of a policy, for sorting; None where there is none.
        text: of a policy with a value.
    """

    title: str
    help: str
    value: Callable[[PolicyResult], float | None]
    text: Callable[[PolicyResult], str]


@dataclasses.dataclass(frozen=True)
class Cell:
    """A figure: what is shown and what it is sorted by."""

    text: str
    value: float | None


@dataclasses.dataclass(frozen=True)
class Row:
    """A policy with its figures; ``mark`` says who wins against it."""

    policy: PolicyResult
    cells: list[tuple[Column, Cell]]
    mark: str


def _mean(title: str, help: str, name: str, text: Callable[[float], str] = number) -> Column:
    def value(policy: PolicyResult) -> float:
        return float(getattr(policy.per_day, name))

    return Column(title, help, value, lambda policy: text(value(policy)))


def _gain(policy: PolicyResult) -> float | None:
    return None if policy.candidate_gain is None else policy.candidate_gain.mean


def _gain_text(policy: PolicyResult) -> str:
    return "" if policy.candidate_gain is None else interval(policy.candidate_gain)


COLUMNS = (
    _mean("cost, $", "machines, penalties and lost revenue", "cost"),
    Column(
        f"{TIMES} optimum",
        "cost relative to that of the clairvoyant optimum",
        lambda policy: policy.cost_to_optimum,
        lambda policy: number(policy.cost_to_optimum or 0, 3),
    ),
    Column("candidate's gain", "reward of the candidate less that of this policy, with interval", _gain, _gain_text),
    _mean("violation min", "minutes with too many failed requests", "violation_minutes"),
    _mean("success", "share of requests that succeeded", "success_rate", lambda share: percent(share, 3)),
    _mean("machine-hours", "paid for", "machine_hours"),
    _mean("reward, $", "value of served requests less machines and penalties", "reward"),
    _mean("machines, $", "cost of machines", "machine_cost"),
    _mean("penalties, $", "for minutes in violation", "penalties"),
    _mean("lost revenue, $", "value of failed requests", "lost_revenue"),
    _mean("over", "share of the time with more machines than the load needed", "over_provisioned", percent),
    _mean("under", "share of the time with fewer machines than the load needed", "under_provisioned", percent),
    _mean("actions", "changes of size", "actions"),
    _mean("reversals", "changes against the direction of the one before", "reversals"),
)


def rows(document: Document) -> list[Row]:
    """All policies, the cheapest first."""
    return [
        Row(
            policy,
            [(column, _cell(column, policy)) for column in COLUMNS],
            "" if policy.candidate_gain is None else outcome(policy.candidate_gain).partition(" ")[0],
        )
        for policy in sorted(document.policies, key=lambda policy: policy.per_day.cost)
    ]


def _cell(column: Column, policy: PolicyResult) -> Cell:
    value = column.value(policy)
    return Cell("" if value is None else column.text(policy), value)
