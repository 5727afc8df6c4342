from __future__ import annotations

from collections.abc import Mapping

import pytest

from policy_runtime import Policy, builtin_bundle
from policy_runtime.rules import make_rule
from training_src.benchmark.compare import gain
from training_src.benchmark.document import (
    BundleIdentity,
    Document,
    Gate,
    LearningPoint,
    Loads,
    Optimum,
    PolicyResult,
    Tuning,
)
from training_src.benchmark.metrics import Summary, summarise
from training_src.benchmark.optimum import run_optimum
from training_src.benchmark.rollout import BundleController, Record, RuleController, run
from training_src.benchmark.statistics import Interval, paired_bootstrap
from training_src.problem import Problem

SEEDS = range(20_000, 20_002)
RULES = {
    "hybrid-70": ("hybrid", {"target": 0.7}),
    "target_tracking-60": ("target_tracking", {"target": 0.6}),
    "target_tracking-70": ("target_tracking", {"target": 0.7}),
    "static-tuned": ("static", {"machines": 40}),
}


@pytest.fixture(scope="session")
def small_evaluation() -> tuple[Document, Mapping[str, Record]]:
    """What a report is made of: two episodes of three days, the built-in bundle against four rules."""
    problem = Problem(episode_steps=3 * 1440)
    fleet = problem.fleet.spec()
    records = {
        "candidate": run(problem, SEEDS, BundleController(Policy(builtin_bundle(fleet)))),
        "incumbent": run(problem, SEEDS, RuleController(make_rule("kubernetes_hpa", {"target": 0.7}, fleet))),
        "optimum": run_optimum(problem, SEEDS)[0],
        **{id: run(problem, SEEDS, RuleController(make_rule(*rule, fleet))) for id, rule in RULES.items()},
    }
    summaries = {id: summarise(record) for id, record in records.items()}
    best = min(RULES, key=lambda id: float(summaries[id].cost.mean()))
    candidate, incumbent = summaries["candidate"], summaries["incumbent"]
    document = Document(
        created="2026-11-22T12:00:00+00:00",
        preset="default",
        seed=0,
        candidate=_bundle("learned"),
        incumbent=_bundle("built-in"),
        gate=Gate(
            best_rule=best,
            over_best_rule=gain(candidate, summaries[best]),
            over_incumbent=gain(candidate, incumbent),
            over_incumbent_relative=paired_bootstrap((candidate.reward - incumbent.reward) / incumbent.cost.mean()),
        ),
        optimum=Optimum(kind="exact", within_action_steps=1500.0),
        policies=[_result(id, summaries) for id in records],
        tuning=[
            Tuning(
                rule="static",
                grid={"machines": [10, 20, 30, 40, 50]},
                configurations=5,
                chosen={"machines": 40},
                cost_per_day=3000.0,
                hindsight={"machines": 50},
                hindsight_cost_per_day=2900.0,
            )
        ],
        loads=Loads(
            description="simulated load, episodes of 3 days",
            tuning="5 episodes, seeds 10,000 to 10,004",
            reporting="2 episodes, seeds 20,000 to 20,001, unseen before",
            blocks=2,
            block_days=3.0,
        ),
        problem=problem.model_dump(mode="json", exclude={"episode_steps"}),
        learning=[
            LearningPoint(steps=1000, reward=5.0),
            LearningPoint(steps=2000, reward=9.0),
            LearningPoint(steps=2000, reward=9.5, exported=True),
        ],
        confidence=0.95,
        resamples=10_000,
        versions={"this project": "0.1.0"},
        notes=["the incumbent was given the fleet of this evaluation"],
    )
    return document, records


def _bundle(name: str) -> BundleIdentity:
    return BundleIdentity(name=name, version="1", digest="0123456789abcdef", fitted=False)


def _result(id: str, summaries: Mapping[str, Summary]) -> PolicyResult:
    rule, parameters = RULES.get(id, (None, {}))
    summary, optimum = summaries[id], summaries["optimum"]
    difference: Interval | None = None if id == "candidate" else gain(summaries["candidate"], summary)
    return PolicyResult(
        id=id,
        label=f"the {id} policy",
        role="rule" if rule else id,  # type: ignore[arg-type]
        rule=rule,
        parameters=parameters,
        tuned=id.endswith("tuned"),
        per_day=summary.per_day(),
        cost_to_optimum=float(summary.cost.sum() / optimum.cost.sum()),
        cost_to_optimum_iqm=None,
        candidate_gain=difference,
        cost_by_block=summary.cost.tolist(),
        violation_minutes_by_block=summary.violation_minutes.tolist(),
    )
