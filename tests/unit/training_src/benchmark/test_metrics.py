from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from policy_runtime.rules import make_rule
from training_src.benchmark.metrics import Measures, summarise
from training_src.benchmark.rollout import Record, RuleController, run
from training_src.problem import Problem

PROBLEM = Problem(episode_steps=300)


def by_hand(load: list[float], active: list[int], machines: list[int], changes: list[int]) -> Record:
    """One fleet on a problem with 300 requests a machine and minute."""
    problem = Problem(episode_steps=len(load))
    arrays = {
        name: np.array(values, np.float32)[:, None]
        for name, values in {"load": load, "active": active, "machines": machines, "changes": changes}.items()
    }
    failed = np.maximum(arrays["load"] - 300 * arrays["active"], 0)
    violation = failed > 0.005 * arrays["load"]
    cost = 0.05 * arrays["machines"] + 200 * violation + 0.0009 * failed
    return Record(
        problem, failed=failed, violation=violation, cost=cost, reward=0.0009 * arrays["load"] - cost, **arrays
    )


def test_every_measure_of_a_record_worked_out_by_hand() -> None:
    # Needs 2, 2, 4, 3 machines; has 2, 3, 3, 3 active.
    record = by_hand([600, 310, 1200, 900], active=[2, 3, 3, 3], machines=[3, 4, 4, 3], changes=[1, 1, 0, -1])

    day = summarise(record).per_day()

    per_day = 1440 / 4
    assert day.violation_minutes == 1 * per_day
    assert day.penalties == pytest.approx(200 * per_day)
    assert day.lost_revenue == pytest.approx(300 * 0.0009 * per_day)
    assert day.machine_hours == pytest.approx(14 / 60 * per_day)
    assert day.machine_cost == pytest.approx(14 * 0.05 * per_day)
    assert day.success_rate == pytest.approx(1 - 300 / 3010)
    assert (day.over_provisioned, day.under_provisioned) == (0.25, 0.25)
    assert (day.spare_machines, day.missing_machines) == (0.25, 0.25)
    assert (day.actions, day.reversals, day.machines_ordered) == (3 * per_day, 1 * per_day, 2 * per_day)


def test_a_reversal_counts_against_the_last_change_however_long_ago() -> None:
    changes = [0, 2, 0, 0, -1, -1, 0, 3, 0, 1]
    record = by_hand([300] * 10, active=[9] * 10, machines=[9] * 10, changes=changes)

    assert summarise(record).reversals[0] == 2
    assert summarise(record, 5).reversals.tolist() == [1, 1]  # the second block remembers the first


@pytest.mark.parametrize("billing", ["request", "activation"])
def test_the_parts_of_the_cost_add_up_to_what_the_simulator_charged(billing: str) -> None:
    problem = Problem.parse({"episode_steps": 2880, "fleet": {"billing": billing, "throughput_noise": 30.0}})
    record = run(problem, range(3), RuleController(make_rule("target_tracking", {"target": 0.9}, problem.fleet.spec())))

    summary = summarise(record, 1440)

    assert summary.penalties.sum() > 0
    np.testing.assert_allclose(summary.machine_cost + summary.penalties + summary.lost_revenue, summary.cost, rtol=1e-4)


def test_summaries_add_up_over_blocks() -> None:
    problem = Problem(episode_steps=2880)
    record = run(problem, range(2), RuleController(make_rule("target_tracking", {}, problem.fleet.spec())))

    whole, days = summarise(record), summarise(record, 1440)

    assert (len(whole.cost), len(days.cost), whole.days, days.days) == (2, 4, 2.0, 1.0)
    for name in (field.name for field in dataclasses.fields(Measures)):
        assert getattr(whole.per_day(), name) == pytest.approx(getattr(days.per_day(), name), rel=1e-2), name
    assert whole.cost[0] == pytest.approx(record.cost[:, 0].sum(dtype=np.float64))
    assert whole.machine_hours[0] == pytest.approx(record.machines[:, 0].sum(dtype=np.float64) / 60)
    value = 0.9 / 1000 * record.load.sum(axis=0, dtype=np.float64)
    np.testing.assert_allclose(whole.reward + whole.cost, value, rtol=1e-5)


def test_violation_minutes_and_success_count_what_failed() -> None:
    record = run(PROBLEM, range(1), RuleController(make_rule("static", {"machines": 5}, PROBLEM.fleet.spec())))

    summary = summarise(record)

    # The fleet is reduced to 5 machines in the first step: 1,500 of some thousand requests succeed each minute.
    failed = np.maximum(record.load[:, 0] - 1500, 0)
    assert summary.violation_minutes[0] == np.sum(failed > 0.005 * record.load[:, 0])
    assert summary.success_rate[0] == pytest.approx(1 - failed.sum() / record.load.sum(), rel=1e-5)
