from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from training_src.benchmark.report.scales import is_wide, log_ticks, square_root_ticks

amounts = st.lists(st.floats(0.01, 1e6), min_size=1, max_size=10)


def test_what_is_below_the_floor_does_not_make_a_spread_wide() -> None:
    assert not is_wide([0.0, 0.001, 7.0], floor=1.0)
    assert is_wide([0.0, 0.001, 9.0], floor=1.0)


@settings(max_examples=50, deadline=None)
@given(amounts)
def test_ticks_of_a_square_root_scale_start_at_zero_and_keep_apart(values: list[float]) -> None:
    ticks = square_root_ticks(values)

    assert ticks[0] == 0 and 2 <= len(ticks) <= 13
    assert (np.diff(np.sqrt(ticks)) >= 0.089 * np.sqrt(max(values))).all()


@settings(max_examples=50, deadline=None)
@given(amounts)
def test_a_logarithmic_scale_has_a_tick_near_each_end(values: list[float]) -> None:
    ticks = log_ticks(values)

    assert min(ticks) <= 2 * min(values) and max(ticks) >= max(values) / 2
