"""What the figures say, in words and with fitting precision."""

from __future__ import annotations

from collections import Counter
from typing import Literal

from training_src.benchmark.document import Document, PolicyResult
from training_src.benchmark.statistics import Interval

Outcome = Literal["beats", "loses to", "cannot be told apart from"]

MINUS = "\N{MINUS SIGN}"
TIMES = "\N{MULTIPLICATION SIGN}"
NO_BREAK = "\N{NO-BREAK SPACE}"


def outcome(gain: Interval) -> Outcome:
    """What a candidate does to a policy over which its gain has this interval."""
    return "beats" if gain.low > 0 else "loses to" if gain.high < 0 else "cannot be told apart from"


def number(value: float, digits: int | None = None) -> str:
    """A number with separators of thousands; about three significant digits when ``digits`` is absent."""
    if digits is None:
        digits = 0 if abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2
    text = f"{abs(value):,.{digits}f}"
    return text if value >= 0 or float(text.replace(",", "")) == 0 else f"{MINUS}{text}"


def dollars(value: float, digits: int | None = None) -> str:
    """An amount of money; whole dollars from ten on when ``digits`` is absent."""
    text = number(value, _cents(value) if digits is None else digits)
    return f"{MINUS}${text[1:]}" if text.startswith(MINUS) else f"${text}"


def _cents(*values: float) -> int:
    """Digits after the point for amounts that stand together."""
    return 0 if max(map(abs, values)) >= 9.995 else 2


def signed_dollars(value: float, digits: int | None = None) -> str:
    """A difference of money."""
    text = dollars(value, digits)
    return text if text.startswith(MINUS) or not value else f"+{text}"


def percent(share: float, digits: int = 1) -> str:
    """A share, 0 to 1, in percent."""
    return f"{number(100 * share, digits)}{NO_BREAK}%"


def interval(gain: Interval) -> str:
    """A difference of money with its interval."""
    mean, low, high = (signed_dollars(value, _digits(gain)) for value in (gain.mean, gain.low, gain.high))
    return f"{mean} [{low}, {high}]"


def _digits(gain: Interval) -> int:
    return _cents(gain.mean, gain.low, gain.high)


def headline(document: Document) -> str:
    """The verdict in one sentence."""
    return f"The candidate {outcome(document.gate.over_best_rule)} the best rule"


def verdict(document: Document) -> list[str]:
    """The verdict in a few sentences: against the best rule, all rules, the incumbent and the optimum."""
    rules = [policy for policy in document.policies if policy.role == "rule"]
    tally = Counter(outcome(policy.candidate_gain) for policy in rules if policy.candidate_gain is not None)
    sentences = [
        _against_best_rule(document, len(rules)),
        f"Of the {len(rules)} rule settings it beats {tally['beats']}, loses to {tally['loses to']} and cannot be told "
        f"apart from {tally['cannot be told apart from']}.",
        _against_incumbent(document),
    ]
    ratio = document.policy("candidate").cost_to_optimum
    if ratio is not None:
        sentences.append(
            f"It costs {number(ratio, 2)} times what the clairvoyant optimum costs, which knows the load in advance."
        )
    return sentences


def _against_best_rule(document: Document, rules: int) -> str:
    gain, best = document.gate.over_best_rule, document.policy(document.gate.best_rule)
    rival = f"{best.label}, the cheapest of the {rules} rule settings"
    level, digits = percent(document.confidence, 0), _digits(gain)
    match outcome(gain):
        case "beats":
            ends = f"{dollars(gain.low, digits)} to {dollars(gain.high, digits)}"
            return f"It earns {dollars(gain.mean, digits)} a day more than {rival} ({level} interval {ends})."
        case "loses to":
            ends = f"{dollars(-gain.high, digits)} to {dollars(-gain.low, digits)}"
            return f"It earns {dollars(-gain.mean, digits)} a day less than {rival} ({level} interval {ends})."
        case _:
            side = "more" if gain.mean >= 0 else "less"
            return (
                f"It earns {dollars(abs(gain.mean), digits)} a day {side} than {rival}, but the {level} interval of "
                f"the difference includes zero: {signed_dollars(gain.low, digits)} to "
                f"{signed_dollars(gain.high, digits)}."
            )


def _against_incumbent(document: Document) -> str:
    if document.candidate == document.incumbent:
        return "It is the incumbent itself."
    label, gain = document.policy("incumbent").label, document.gate.over_incumbent
    return f"It {outcome(gain)} the incumbent, {label}: {interval(gain)} a day."


def optimum_meaning(document: Document) -> str:
    """What the clairvoyant optimum is."""
    if document.optimum.kind == "exact":
        text = "It knows the whole load in advance, and no policy can cost less on these loads."
    else:
        text = (
            "It knows the whole load in advance but not the machines' random throughput, and has the least expected "
            "cost; on a given load luck can undercut it."
        )
    if document.optimum.within_action_steps is not None:
        text += (
            " A policy that changes the size by at most the steps that the candidate may take costs at least "
            f"{dollars(document.optimum.within_action_steps)} a day (a lower bound)."
        )
    return text


def key_figures(policy: PolicyResult) -> dict[str, str]:
    """The handful of figures to look at first."""
    day = policy.per_day
    return {
        "Cost a day": dollars(day.cost),
        "Cost / optimum": "" if policy.cost_to_optimum is None else number(policy.cost_to_optimum, 2),
        "Violation minutes a day": number(day.violation_minutes, 2),
        "Machine-hours a day": number(day.machine_hours),
        "Requests that succeed": percent(day.success_rate, 3),
    }


def interval_method(document: Document) -> str:
    """How intervals were made."""
    loads = document.loads
    blocks = "days" if loads.trace else "episodes"
    return (
        f"{percent(document.confidence, 0)} intervals of the mean paired difference by bootstrap over {loads.blocks} "
        f"{blocks} ({document.resamples:,} resamples). They are over loads, not over training runs."
    )


def gate(document: Document) -> str:
    """The figures on which promotion is decided."""
    rule, incumbent, relative = (
        document.gate.over_best_rule,
        document.gate.over_incumbent,
        document.gate.over_incumbent_relative,
    )
    return (
        f"the lower bounds of the gain: over the best rule {signed_dollars(rule.low, _digits(rule))} a day, over the "
        f"incumbent {signed_dollars(incumbent.low, _digits(incumbent))} a day ({percent(relative.low)} of its cost)"
    )


def hindsight(document: Document) -> str:
    """How the candidate compares with the best setting of any rule, chosen on the reporting loads themselves."""
    best = min(document.tuning, key=lambda tuning: tuning.hindsight_cost_per_day)
    return (
        "Chosen on the reporting loads themselves, which nobody knows before, the best setting of all grids "
        f"({best.rule}: {settings(best.hindsight)}) would cost {dollars(best.hindsight_cost_per_day)} a day; the "
        f"candidate costs {dollars(document.policy('candidate').per_day.cost)}."
    )


def settings(parameters: dict[str, float]) -> str:
    """Parameters of a rule."""
    return ", ".join(f"{name} {value:g}" for name, value in parameters.items())


def grid(values: dict[str, list[float]]) -> str:
    """The values that were tried of each parameter; a long list by its ends."""
    return "; ".join(f"{name} {_values(tried)}" for name, tried in values.items())


def _values(tried: list[float]) -> str:
    if len(tried) <= 4:
        return ", ".join(f"{value:g}" for value in tried)
    return f"{min(tried):g} to {max(tried):g} ({len(tried)} values)"
