from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training_src.benchmark.document import Document
from training_src.benchmark.report.days import Days
from training_src.benchmark.rollout import Record

Evaluation = tuple[Document, Mapping[str, Record]]


@settings(max_examples=50, deadline=None)
@given(
    steps=st.integers(1, 5000),
    step_seconds=st.sampled_from([1, 60, 675, 3600]),
    second=st.integers(0, 86_399),
)
def test_every_step_belongs_to_the_day_on_which_it_begins(steps: int, step_seconds: int, second: int) -> None:
    start = datetime(2024, 2, 28, tzinfo=UTC) + timedelta(seconds=second)
    days = Days(steps, step_seconds, start, dated=True)

    parts = [days.steps_of(day) for day in range(days.count)]

    assert [step for part in parts for step in range(part.start, part.stop)] == list(range(steps))
    for day, part in enumerate(parts):
        for step in {part.start, part.stop - 1} if part.stop > part.start else ():
            time = start + timedelta(seconds=step * step_seconds)
            assert days.midnight(day) <= time < days.midnight(day + 1)


@pytest.mark.parametrize(("start", "label"), [(None, "day 3"), ("1995-08-01T00:00:00+00:00", "Thu 3 Aug 1995")])
def test_days_of_a_trace_have_dates_and_others_have_numbers(
    start: str | None, label: str, small_evaluation: Evaluation
) -> None:
    document, records = small_evaluation
    loads = document.loads.model_copy(update={"start": start})

    days = Days.of(document.model_copy(update={"loads": loads}), records["candidate"])

    assert (days.count, days.label(2)) == (3, label)


def test_the_eventful_day_is_that_of_the_steepest_rise_of_the_first_load(small_evaluation: Evaluation) -> None:
    document, records = small_evaluation
    record = records["candidate"].lanes(0, 2)
    record.load[:] = 100.0
    record.load[2 * 1440 + 700 :, 0] += 50.0  # a step up on the third day
    record.load[1440 + 700 :, 1] += 5000.0  # of another load
    record.load[:1440, 0] += np.linspace(0, 1000, 1440)  # slow

    assert Days.of(document, record).eventful(record) == 2
