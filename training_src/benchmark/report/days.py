"""The days of a record."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta

import numpy as np

from policy_runtime.spec import DAY_SECONDS
from training_src.benchmark.document import Document
from training_src.benchmark.rollout import Record

_FIRST_DAY = datetime(2001, 1, 1, tzinfo=UTC)
"""Stands for day 1 of a simulated load, which has no date: its day of the year is the number of the day."""


@dataclasses.dataclass(frozen=True)
class Days:
    """Calendar days (UTC) of a recorded load, or days since the start of a simulated episode; numbered from 0.

    Attributes:
        steps: length of the record.
        step_seconds: length of a step.
        start: time of the first step.
        dated: whether ``start`` is a real time.
    """

    steps: int
    step_seconds: int
    start: datetime
    dated: bool

    @classmethod
    def of(cls, document: Document, record: Record) -> Days:
        """The days on which a record of the document's loads was made."""
        start = document.loads.start
        return cls(
            steps=len(record.load),
            step_seconds=record.problem.fleet.step_seconds,
            start=_FIRST_DAY if start is None else datetime.fromisoformat(start).astimezone(UTC),
            dated=start is not None,
        )

    @property
    def count(self) -> int:
        """How many days the record touches."""
        return -(-(self.into_first_day + self.steps * self.step_seconds) // DAY_SECONDS)

    @property
    def into_first_day(self) -> int:
        """Seconds from the midnight before the start to the start."""
        return int((self.start - self.midnight(0)).total_seconds())

    def midnight(self, day: int) -> datetime:
        """When a day begins."""
        return self.start.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=day)

    def steps_of(self, day: int) -> slice:
        """The steps that begin on a day; the first and the last day may be incomplete."""
        first, last = (
            -(-(midnight * DAY_SECONDS - self.into_first_day) // self.step_seconds) for midnight in (day, day + 1)
        )
        return slice(max(0, first), min(last, self.steps))

    def label(self, day: int) -> str:
        """A day's name for people."""
        midnight = self.midnight(day)
        return f"{midnight:%a} {midnight.day} {midnight:%b %Y}" if self.dated else f"day {day + 1}"

    def eventful(self, record: Record) -> int:
        """The day on which the load of the first fleet rises most within ten steps."""
        load = record.load[:, 0]
        parts = [load[self.steps_of(day)] for day in range(self.count)]
        return int(np.argmax([float((part[10:] - part[:-10]).max(initial=0.0)) for part in parts]))
