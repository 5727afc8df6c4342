"""The one list of metrics: what they are called, what they mean, how they are printed and found in a log.

The trainer prints lines ``name=value; name=value;``, SageMaker finds the values by each metric's regular expression
(https://docs.aws.amazon.com/sagemaker/latest/dg/define-train-metrics.html), and dashboards plot them by name.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping

# Every finite number that Python's repr(float) writes, without groups: a definition may hold one group only.
_NUMBER = r"[-+]?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?"


@dataclasses.dataclass(frozen=True)
class Metric:
    """A quantity that training or evaluation reports.

    Attributes:
        name: letters, digits and underscores; the prefix says whether training or evaluation reports it.
        unit: of the value.
        description: what it means, in one line.
    """

    name: str
    unit: str
    description: str

    @property
    def regex(self) -> str:
        """Finds the value in a line of a log; the one group is the number, and the name must match as a whole."""
        return rf"(?:^|[^A-Za-z0-9_]){self.name}=({_NUMBER});"


METRICS: tuple[Metric, ...] = (
    Metric("train_reward_mean", "dollars", "mean reward of the last 100 training episodes that ended"),
    Metric("train_steps_per_second", "steps/s", "environment steps per second of wall time, learning included"),
    Metric("train_total_steps", "steps", "environment steps since training began, earlier runs included"),
    Metric("train_policy_loss", "1", "clipped surrogate loss of the policy"),
    Metric("train_value_loss", "1", "squared error of the value function, on normalised returns"),
    Metric("train_entropy", "nats", "mean entropy of the policy's action distribution"),
    Metric("train_approx_kl", "nats", "approximate KL divergence between the policy before and after the update"),
    Metric("train_explained_variance", "1", "share of the returns' variance that the value function explains"),
    Metric("train_progress", "share", "share of the step budget that is done, 0 to 1"),
    Metric("eval_reward_mean", "dollars", "mean reward of the evaluation episodes"),
    Metric("eval_cost_mean", "dollars", "mean cost of the evaluation episodes: machines, penalties and lost revenue"),
    Metric("eval_violation_minutes_per_day", "min/day", "minutes a day whose failure share is above the threshold"),
    Metric("eval_machine_hours", "machine-hours", "mean machine-hours paid for in an evaluation episode"),
    Metric("eval_success_rate", "share", "share of the evaluation episodes' requests that succeed, 0 to 1"),
    Metric("eval_best_cost", "dollars", "lowest eval_cost_mean so far: that of the policy which is kept"),
    Metric("eval_cost_to_optimum", "1", "cost of the evaluation episodes as a multiple of the clairvoyant optimum's"),
    Metric("eval_gain_over_best_rule", "dollars/day", "reward a day above that of the rule that costs least"),
    Metric("eval_gain_over_best_rule_low", "dollars/day", "lower bound of eval_gain_over_best_rule at 95 % confidence"),
    Metric("eval_gain_over_incumbent", "dollars/day", "reward a day above that of the policy that serves now"),
    Metric("eval_gain_over_incumbent_low", "dollars/day", "lower bound of eval_gain_over_incumbent at 95 % confidence"),
)

_PATTERNS = {metric.name: re.compile(metric.regex) for metric in METRICS}


def format_line(values: Mapping[str, float]) -> str:
    """Values as one line of a log, ``name=value; name=value;``.

    Args:
        values: by metric name; a value that is not finite is left out, because SageMaker stores numbers only.

    Raises:
        KeyError: a name is not in ``METRICS``.
    """
    if unknown := sorted(set(values) - set(_PATTERNS)):
        raise KeyError(f"unknown metric {unknown[0]!r}, known: {', '.join(_PATTERNS)}")
    return " ".join(f"{name}={float(value)!r};" for name, value in values.items() if math.isfinite(value))


def parse(text: str) -> Iterator[tuple[str, float]]:
    """The ``(name, value)`` pairs in a log, line by line, found with the regular expressions that SageMaker uses."""
    for line in text.splitlines():
        for name, pattern in _PATTERNS.items():
            for match in pattern.finditer(line):
                yield name, float(match[1])


def metric_definitions() -> list[dict[str, str]]:
    """The list as ``AlgorithmSpecification.MetricDefinitions`` of SageMaker's ``CreateTrainingJob`` takes it."""
    return [{"Name": metric.name, "Regex": metric.regex} for metric in METRICS]
