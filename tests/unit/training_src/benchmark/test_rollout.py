from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

import training_src.envs  # noqa: F401
from policy_runtime import Policy, builtin_bundle, decide
from policy_runtime.rules import make_rule
from training_src.benchmark.rollout import ActionController, BundleController, Record, RuleController, run
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

    (latest,) = controller.latest
    assert "rule" in latest["state"]
    assert decide(controller.policy, {**_request(), "state": latest["state"]})["desired"] >= 1
    (decisions,) = controller.decisions
    assert len(decisions) == 30
    assert (decisions[-1].desired, decisions[-1].delta) == (latest["desired"], latest["delta"])


def _request() -> dict[str, object]:
    return {"timestamp": 0, "load": [10.0], "failed": [0], "active": [3], "pending": [0]}


def test_records_are_cut_and_joined_by_fleet() -> None:
    record = run(PROBLEM, range(3), RuleController(make_rule("hybrid", {}, PROBLEM.fleet.spec())))

    joined = Record.concatenate([record.lanes(0), record.lanes(1, 2)])

    assert record.lanes(2).load.shape == (300, 1)
    np.testing.assert_array_equal(joined.cost, record.cost)
    np.testing.assert_array_equal(joined.violation, record.violation)


def test_changes_are_those_of_the_decisions_the_first_included() -> None:
    record = run(PROBLEM, range(2), RuleController(make_rule("static", {"machines": 5}, PROBLEM.fleet.spec())))

    assert (record.changes[0] < 0).all() and (record.machines[0] == 5).all()
    np.testing.assert_array_equal(record.changes[1:], np.diff(record.machines, axis=0))
