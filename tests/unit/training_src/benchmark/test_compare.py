from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from policy_runtime import builtin_bundle
from policy_runtime.rules import make_rule
from training_src.benchmark.compare import OPTIMUM, RULES_AS_THEY_COME, Contender, evaluate, gain
from training_src.benchmark.metrics import summarise
from training_src.benchmark.rollout import RuleController, run
from training_src.problem import Problem

PROBLEM = Problem(episode_steps=1440)


def test_results_come_in_the_order_asked_and_over_the_same_loads() -> None:
    bundle = Contender("mine", "mine", bundle=builtin_bundle(PROBLEM.fleet.spec()))
    contenders = [bundle, OPTIMUM, *RULES_AS_THEY_COME[:3]]

    results = evaluate(contenders, PROBLEM, range(5, 8))

    assert [result.contender for result in results] == contenders
    for result in results:
        np.testing.assert_array_equal(result.record.load, results[0].record.load)
        assert (len(result.decisions), result.record.cost.shape) == (3 if result is results[0] else 0, (1440, 3))
    assert [len(lane) for lane in results[0].decisions] == [1440] * 3
    policy, optimum, *rules = (summarise(result.record) for result in results)
    assert all((optimum.cost < rival.cost).all() for rival in (policy, *rules))
    interval = gain(policy, rules[0])
    assert interval.low <= interval.mean <= interval.high
    assert interval.mean == pytest.approx(policy.per_day().reward - rules[0].per_day().reward)


def test_rules_that_are_run_in_one_batch_decide_as_each_does_alone() -> None:
    settings = [{"target": 0.6}, {"target": 0.8, "in_periods": 5}]
    contenders = [
        Contender(str(i), "tracking", rule="target_tracking", parameters=parameters)
        for i, parameters in enumerate(settings)
    ]

    results = evaluate(contenders, PROBLEM, range(2))

    for parameters, result in zip(settings, results, strict=True):
        rule = make_rule("target_tracking", parameters, PROBLEM.fleet.spec())
        alone = run(PROBLEM, range(2), RuleController(rule))
        np.testing.assert_array_equal(result.record.machines, alone.machines)
        np.testing.assert_array_equal(result.record.cost, alone.cost)


def test_a_smaller_step_makes_the_optimum_dearer() -> None:
    bound = dataclasses.replace(OPTIMUM, id="bound", parameters={"step_limits": (1, 1)})
    free, limited = (summarise(result.record) for result in evaluate([OPTIMUM, bound], PROBLEM, range(2)))
    assert (free.cost < limited.cost).all()


def test_labels_tell_settings_apart() -> None:
    assert [rule.label for rule in RULES_AS_THEY_COME] == [
        "target tracking 60 %",
        "target tracking 70 %",
        "step scaling 70 %",
        "Kubernetes HPA 70 %",
        "predictive + tracking 60 %",
        "seasonal hybrid 70 %",
    ]
    assert Contender("s", "fixed size", rule="static", parameters={"machines": 37}, tuned=True).label == (
        "fixed size 37 (tuned)"
    )
    assert len({rule.id for rule in RULES_AS_THEY_COME}) == len(RULES_AS_THEY_COME)
