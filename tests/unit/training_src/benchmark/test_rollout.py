from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

import training_src.envs  # noqa: F401
from policy_runtime import Policy, builtin_bundle, decide
from policy_runtime.rules import make_rule
from training_src.benchmark.metrics import Summary, summarise
from training_src.benchmark.rollout import ActionController, BundleController, RuleController, run
from training_src.problem import Problem

PROBLEM = Problem(episode_steps=300)


def test_every_controller_meets_the_same_loads() -> None:
    small = run(PROBLEM, range(7, 10), RuleController(make_rule("static", {"machines": 5}, PROBLEM.fleet.spec())))
    large = run(PROBLEM, range(7, 10), RuleController(make_rule("static", {"machines": 90}, PROBLEM.fleet.spec())))

    np.testing.assert_array_equal(small.load, large.load)
    assert small.cost.sum() != large.cost.sum()


def test_a_record_is_what_the_environment_says_step_by_step() -> None:
    record = run(PROBLEM, range(3, 4), ActionController(lambda observation: np.full(len(observation), 3)))
    env = gym.make("AutoScaling-v0", episode_steps=300)
    env.reset(seed=3)

    for step in range(300):
        _, reward, _, _, info = env.step(3)
        assert reward == pytest.approx(float(record.reward[step, 0]))
        assert info["cost"] == pytest.approx(float(record.cost[step, 0]))
        assert info["machines"] == record.machines[step, 0]


def test_a_rule_decides_alike_by_itself_and_as_a_bundle_without_guardrails_in_its_way() -> None:
    spec = PROBLEM.fleet.spec()
    alone = run(PROBLEM, range(2), RuleController(make_rule("hybrid", {}, spec)))

    bundled = run(PROBLEM, range(2), BundleController(Policy(builtin_bundle(spec))))

    # The guardrail's largest steps may spread one large change over two minutes.
    assert np.mean(alone.machines == bundled.machines) > 0.95


def test_a_bundle_is_asked_with_the_record_of_its_last_decision() -> None:
    controller = BundleController(Policy(builtin_bundle()))
    run(Problem(episode_steps=30), range(1), controller)

    records = controller.records[0]
    assert len(records) == 30
    assert all("rule" in record["state"] for record in records)
    assert decide(controller.policy, {**_request(), "state": records[-1]["state"]})["desired"] >= 1


def _request() -> dict[str, object]:
    return {"timestamp": 0, "load": [10.0], "failed": [0], "active": [3], "pending": [0]}


def test_summaries_add_up_over_blocks() -> None:
    problem = Problem(episode_steps=2880)
    record = run(problem, range(2), RuleController(make_rule("target_tracking", {}, problem.fleet.spec())))

    whole, days = summarise(record), summarise(record, 1440)

    assert (len(whole.cost), len(days.cost), whole.days, days.days) == (2, 4, 2.0, 1.0)
    assert whole.cost.sum() == pytest.approx(days.cost.sum())
    assert whole.per_day()["cost"] == pytest.approx(days.per_day()["cost"])
    assert whole.cost[0] == pytest.approx(record.cost[:, 0].sum(dtype=np.float64))
    assert whole.machine_hours[0] == pytest.approx(record.machines[:, 0].sum(dtype=np.float64) / 60)
    value = 0.9 / 1000 * record.load.sum(axis=0, dtype=np.float64)
    np.testing.assert_allclose(whole.reward + whole.cost, value, rtol=1e-5)
    joined = Summary.concatenate([days, days])
    assert joined.cost.tolist() == [*days.cost, *days.cost]


def test_violation_minutes_and_success_count_what_failed() -> None:
    record = run(PROBLEM, range(1), RuleController(make_rule("static", {"machines": 5}, PROBLEM.fleet.spec())))

    summary = summarise(record)

    # The fleet is reduced to 5 machines in the first step: 1,500 of some thousand requests succeed each minute.
    failed = np.maximum(record.load[:, 0] - 1500, 0)
    assert summary.violation_minutes[0] == np.sum(failed > 0.005 * record.load[:, 0])
    assert summary.success_rate[0] == pytest.approx(1 - failed.sum() / record.load.sum(), rel=1e-5)
