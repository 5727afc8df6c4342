from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from policy_runtime import builtin_bundle, write_bundle
from policy_runtime.errors import BundleError
from training_src.benchmark.compare import RULES_AS_THEY_COME, TARGETS, Contender, advantage, evaluate, tune
from training_src.benchmark.picture import draw_comparison, eventful_day
from training_src.problem import Problem

PROBLEM = Problem(episode_steps=1440)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "model.tar.gz"
    write_bundle(builtin_bundle(PROBLEM.fleet.spec()), path)
    return path


def test_results_come_in_the_order_asked_and_over_the_same_loads(bundle: Path, tmp_path: Path) -> None:
    contenders = [Contender("mine", bundle=bundle), *RULES_AS_THEY_COME[:2]]

    policy, first, second = evaluate(contenders, PROBLEM, range(3))

    assert [r.contender for r in (policy, first, second)] == contenders
    assert all(len(r.summary.cost) == 3 for r in (policy, first, second))
    np.testing.assert_array_equal(policy.lane.load, first.lane.load)
    interval = advantage(policy, first)
    assert interval.low <= interval.mean <= interval.high
    assert interval.mean == pytest.approx(policy.summary.per_day()["reward"] - first.summary.per_day()["reward"])
    # and a picture of them
    log = tmp_path / "metrics.jsonl"
    log.write_text(json.dumps({"steps": 10, "eval_reward_mean": 1.0}) + "\n")
    draw_comparison(tmp_path / "new" / "picture.png", policy, [first, second], log)
    assert (tmp_path / "new" / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_tuning_keeps_the_cheapest_target_of_each_rule() -> None:
    tuned = tune(PROBLEM, range(2))

    assert [contender.rule for contender in tuned] == list(dict.fromkeys(c.rule for c in RULES_AS_THEY_COME))
    hybrid = tuned[-1]
    everything = evaluate([hybrid.with_target(target) for target in TARGETS], PROBLEM, range(2))
    cheapest = min(everything, key=lambda result: float(result.summary.cost.mean())).contender
    assert hybrid.parameters == cheapest.parameters
    assert hybrid.label.endswith("(tuned)")


def test_the_alarms_of_step_scaling_keep_their_distance() -> None:
    step = next(contender for contender in RULES_AS_THEY_COME if contender.rule == "step_scaling")
    assert step.with_target(0.9).parameters == {"high": 0.9, "low": 0.7}


def test_a_damaged_bundle_is_refused_in_the_parent_process(tmp_path: Path) -> None:
    path = tmp_path / "model.tar.gz"
    path.write_bytes(b"not a bundle")
    with pytest.raises(BundleError):
        evaluate([Contender("broken", bundle=path)], PROBLEM, range(1))


def test_the_day_shown_is_the_one_with_the_steepest_rise() -> None:
    (result,) = evaluate([RULES_AS_THEY_COME[0]], Problem(episode_steps=3 * 1440), range(1))
    result.lane.load[:] = 100.0
    result.lane.load[1440 + 700 : 1440 + 800] = 500.0
    assert eventful_day(result.lane) == (1440, 2880)
