"""``evaluation.json``: what an evaluation found, for the promotion gate, the report and whoever reads it later."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from training_src.benchmark.metrics import Measures
from training_src.benchmark.statistics import Interval

Role = Literal["candidate", "incumbent", "rule", "optimum"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PolicyResult(_Part):
    """How one policy did on the reporting loads."""

    id: str = Field(
        description="unique in the document: candidate, incumbent, optimum, or the rule's name and settings"
    )
    label: str = Field(description="for people")
    role: Role
    rule: str | None = Field(None, description="name of the rule, where it is one")
    parameters: dict[str, Any] = Field(default_factory=dict, description="of the rule")
    tuned: bool = Field(False, description="whether the parameters were tuned on the tuning loads")
    per_day: Measures = Field(description="means over the reporting loads, of one day")
    cost_to_optimum: float | None = Field(description="total cost / total cost of the optimum; null if that is 0")
    cost_to_optimum_iqm: float | None = Field(description="interquartile mean over blocks of cost / optimum's cost")
    candidate_gain: Interval | None = Field(
        description="reward a day of the candidate less that of this policy: mean over paired blocks with interval; "
        "null for the candidate"
    )
    cost_by_block: list[float] = Field(description="dollars in each block")
    violation_minutes_by_block: list[float]


class Optimum(_Part):
    """What the clairvoyant optimum is in this evaluation."""

    kind: Literal["exact", "expected"] = Field(
        description="exact: no policy can cost less on these loads; expected: the least expected cost of a policy "
        "that knows the load but not the machines' random throughput, which luck can undercut"
    )
    within_action_steps: float | None = Field(
        description="lower bound of the cost a day of any policy that changes the size by at most the steps that the "
        "candidate may take; null with random throughput"
    )


class Tuning(_Part):
    """How one rule was tuned."""

    rule: str
    grid: dict[str, list[float]] = Field(description="values tried of each parameter")
    configurations: int = Field(description="how many combinations were tried, on all tuning loads each")
    chosen: dict[str, float] = Field(description="the combination that cost least on the tuning loads")
    cost_per_day: float = Field(description="on the tuning loads")
    hindsight: dict[str, float] = Field(
        description="the combination that cost least on the reporting loads, which nobody could have known before"
    )
    hindsight_cost_per_day: float = Field(description="of that one, on the reporting loads")


class Loads(_Part):
    """On which loads policies were run."""

    description: str
    tuning: str = Field(description="the loads for tuning the rules, in words")
    reporting: str = Field(description="the loads that results are of, in words")
    blocks: int = Field(description="paired blocks: episodes, or days of a trace")
    block_days: float
    start: str | None = Field(None, description="UTC time of a trace's first reporting step, ISO 8601")
    trace: dict[str, str] | None = Field(None, description="name and sha256 of the recorded load")


class BundleIdentity(_Part):
    """Which bundle was run."""

    name: str
    version: str
    digest: str = Field(description="of the bundle as it was given")
    fitted: bool = Field(description="whether the bundle was given the fleet of this evaluation in place of its own")


class LearningPoint(_Part):
    """An evaluation during training, on tuning loads and without guardrails."""

    steps: int = Field(description="environment steps done")
    reward: float = Field(description="mean reward of an episode, dollars")
    exported: bool = Field(False, description="whether it is the policy that was exported")


class Gate(_Part):
    """What promotion is decided on: gains of the candidate in dollars a day, with intervals."""

    best_rule: str = Field(description="id of the rule that cost least on the reporting loads, tuned or as it comes")
    over_best_rule: Interval
    over_incumbent: Interval
    over_incumbent_relative: Interval = Field(description="over_incumbent as a share of the incumbent's cost a day")


class Document(_Part):
    """The whole of ``evaluation.json``."""

    schema_version: Literal[1] = 1
    created: str = Field(description="UTC, ISO 8601")
    preset: str
    seed: int | None = Field(description="of the candidate's training run, where it is known")
    candidate: BundleIdentity
    incumbent: BundleIdentity
    gate: Gate
    optimum: Optimum
    policies: list[PolicyResult] = Field(description="candidate, incumbent, optimum, then rules")
    tuning: list[Tuning]
    loads: Loads
    problem: dict[str, Any] = Field(description="load, fleet and economics, as the preset has them")
    learning: list[LearningPoint] = Field(default_factory=list, description="of the candidate; empty when not known")
    confidence: float
    resamples: int
    versions: dict[str, str] = Field(description="of this code, Python and libraries")
    notes: list[str] = Field(description="what a reader has to know: repairs of a trace, bundles fitted, limits")

    def policy(self, id: str) -> PolicyResult:
        """A policy by its id; raises ``KeyError``."""
        for policy in self.policies:
            if policy.id == id:
                return policy
        raise KeyError(id)
