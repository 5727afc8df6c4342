from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training_src.envs.economics import Outcome, settle
from training_src.problem import Economics

PRICES = Economics(machine_cost=0.05, success_value=0.9, violation_penalty=200.0, failure_threshold=0.005)


def one(load: float, capacity: float, billed: float, minutes: float = 1.0) -> Outcome:
    return settle(PRICES, minutes, *(np.array([value], np.float32) for value in (load, capacity, billed)))


def test_a_step_within_the_capacity_earns_the_successes_less_the_machines() -> None:
    outcome = one(load=6000, capacity=6000, billed=25)
    assert outcome.reward.item() == pytest.approx(6.0 * 0.9 - 25 * 0.05)
    assert outcome.cost.item() == pytest.approx(25 * 0.05)
    assert (outcome.failed.item(), outcome.violation.item()) == (0.0, False)


def test_a_violation_costs_its_penalty_and_the_value_of_what_failed() -> None:
    outcome = one(load=6000, capacity=5000, billed=20)
    assert outcome.failed.item() == 1000.0
    assert outcome.violation.item() is True
    assert outcome.reward.item() == pytest.approx(5.0 * 0.9 - 20 * 0.05 - 200, rel=1e-6)
    assert outcome.cost.item() == pytest.approx(20 * 0.05 + 200 + 1.0 * 0.9, rel=1e-6)


@pytest.mark.parametrize(("failed", "violation"), [(49.0, False), (50.0, False), (51.0, True)])
def test_a_step_is_a_violation_above_the_threshold_only(failed: float, violation: bool) -> None:
    assert one(load=10_000, capacity=10_000 - failed, billed=1).violation.item() is violation


def test_no_load_is_no_violation_even_without_machines() -> None:
    outcome = one(load=0, capacity=0, billed=0)
    assert (outcome.reward.item(), outcome.cost.item(), outcome.violation.item()) == (0.0, 0.0, False)


def test_machines_and_penalty_are_priced_by_the_minute_and_requests_by_the_piece() -> None:
    outcome = one(load=6000, capacity=5000, billed=20, minutes=5.0)
    assert outcome.cost.item() == pytest.approx(5 * (20 * 0.05 + 200) + 0.9, rel=1e-6)


@given(
    load=st.floats(0, 1e6, width=32),
    capacity=st.floats(0, 1e6, width=32),
    billed=st.integers(0, 1000),
)
def test_reward_and_cost_add_up_to_the_value_of_the_load(load: float, capacity: float, billed: int) -> None:
    outcome = one(load, capacity, billed)
    assert outcome.reward.item() + outcome.cost.item() == pytest.approx(load * 0.9e-3, rel=1e-4, abs=1e-3)
    assert 0.0 <= outcome.failed.item() <= load
