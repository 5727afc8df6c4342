"""One scaling decision: a pure function of a policy and a request, with guardrails that hold whatever the policy says.

Order of a decision:

1. The request is checked; nothing is guessed (``InputError`` names the field).
2. The learned policy proposes a size. If it cannot (not loaded, history too short, too many values missing, stale data,
   unknown seasonal values, no finite scores), the fallback rule does, and the record says so.
3. Guardrails, in this order: no scale-in on missing, stale or abnormal data; no scale-in soon after a scale-out; the
   largest step up and down; the fleet's limits. The limits win over all: a fleet outside them is brought back at once.

The caller carries ``state`` from one record to the next request. It holds the time of the last scale-out and, when a
rule decided, the rule's state. A rule's state that is absent, of another policy, or not exactly one step old is not
used: the rule is warmed up on the request's own history instead. So the learned policy's fallback costs nothing while
it is not needed, and a caller without state still gets sound decisions if it sends some history.
"""

from __future__ import annotations

import datetime as dt
import math
import struct
from collections.abc import Mapping, Sequence
from types import NoneType
from typing import Any

import numpy as np
import numpy.typing as npt

from policy_runtime.bundle import Bundle, OnnxPart, RulePart, load_policy
from policy_runtime.errors import BundleError, InputError
from policy_runtime.features import (
    Observer,
    feature_names,
    pending_queue,
    seasonal_history,
    seasonal_names,
    seasonal_values,
)
from policy_runtime.rules import Fleets, Rule, State, make_rule
from policy_runtime.session import OnnxPolicy

Doubles = npt.NDArray[np.float64]

MAX_DAYS = 29
"""Days of history that a request may hold: four weeks, the longest seasonal value, and a day of margin."""
MAX_VALUE = 1e12
"""Largest number that a request may hold."""
_MAX_BITS = int(np.float64(MAX_VALUE).view(np.uint64))
MAX_TIME = 32_503_680_000.0  # the year 3000
_WEEK_SECONDS = 7 * 86_400
_MONDAY = 3 * 86_400  # the epoch began on a Thursday, three days into its week
_MEDIAN_STEPS = 15
"""Steps before a fall of the load whose median it is compared with."""
REQUEST_KEYS = ("timestamp", "observed_at", "load", "failed", "active", "pending", "seasonal", "state")
HISTORIES = ("load", "failed", "active", "pending")
REQUIRED_KEYS = ("timestamp", *HISTORIES)
STATE_KEYS = ("policy", "decided_at", "last_scale_out", "rule")
"""Keys of a request, those of them that are histories or required, and keys of its ``state``."""


class Policy:
    """A loaded scaling bundle, ready to decide. It is not changed by deciding.

    Attributes:
        bundle: what was loaded.
        rule: the rule that decides, or that stands in for the learned policy.
        learned: the learned policy; ``None`` for a rule, and when it could not be loaded.
        observer: makes what the learned policy sees.
        failure: why the learned policy could not be loaded, else ``None``; the rule then decides.
        seasonal: names of the seasonal values that a request should give, unless its history is ``history`` long.
        seasonal_set: the same, to look them up.
        learned_seasonal: those of them that the learned policy cannot do without.
        learned_history: steps of history that the learned policy cannot do without.
        history: steps of history from which everything can be computed.
        identity: name, version and rule: a state of another identity is not used.
    """

    def __init__(self, bundle: Bundle) -> None:
        """Load the policy of a bundle.

        Raises:
            BundleError: the bundle is of a user's own environment, or a rule of it is not valid.
        """
        if bundle.kind != "scaling":
            raise BundleError(
                f"policy {bundle.name!r} is of kind {bundle.kind!r}, made for a user's own environment: it has no "
                "fleet to scale; run its policy.onnx with policy_runtime.session.OnnxPolicy"
            )
        self.bundle = bundle
        self.learned: OnnxPolicy | None = None
        self.failure: str | None = None
        rule = bundle.fallback
        if isinstance(bundle.policy, RulePart):
            rule = bundle.policy
        else:
            try:
                sizes = (len(feature_names(bundle.features, bundle.fleet)), len(bundle.actions.steps))
                self.learned = load_policy(bundle, *sizes)
            except BundleError as error:
                self.failure = str(error)
        try:
            self.rule: Rule = make_rule(rule.rule, rule.parameters, bundle.fleet)
        except ValueError as error:
            raise BundleError(f"policy {bundle.name!r}: {error}") from error
        self.observer = Observer(bundle.features, bundle.fleet)
        self.learned_seasonal = seasonal_names(bundle.features) if isinstance(bundle.policy, OnnxPart) else ()
        self.learned_history = max(bundle.features.history, bundle.fleet.provisioning_delay + 1)
        self.seasonal = tuple(dict.fromkeys((*self.learned_seasonal, *self.rule.seasonal)))
        self.seasonal_set = frozenset(self.seasonal)
        self.history = max(
            bundle.features.history if isinstance(bundle.policy, OnnxPart) else 1,
            bundle.fleet.provisioning_delay + 1,
            self.rule.memory + 1,
            seasonal_history(self.seasonal, bundle.features, bundle.fleet),
        )
        self.identity = {"name": bundle.name, "version": bundle.version, "rule": self.rule.name}


class _Request:
    """A checked request; arrays are float64 with NaN for missing values, most recent last.

    Attributes:
        complete: no value is missing.
    """

    def __init__(self, policy: Policy, request: Mapping[str, Any]) -> None:
        if not isinstance(request, Mapping):
            raise InputError("request", f"expected an object, got {type(request).__name__}")
        for key in request:
            if key not in REQUEST_KEYS:
                raise InputError(str(key), f"unknown key, known: {', '.join(REQUEST_KEYS)}")
        for key in REQUIRED_KEYS:
            if key not in request:
                raise InputError(key, "is required")
        step = policy.bundle.fleet.step_seconds
        self.time = _time("timestamp", request["timestamp"])
        observed = request.get("observed_at")
        self.age = 0.0 if observed is None else self.time - _time("observed_at", observed)
        if self.age < -step:
            raise InputError("observed_at", "is more than a step later than timestamp")
        histories, self.complete = _histories(request, policy.bundle.fleet.steps_per_day)
        self.load, self.failed, self.active, self.pending = histories
        self.total = int(self.active[-1] + self.pending[-1])
        self.seasonal = _seasonal(policy, request.get("seasonal"))
        self.state = _State(policy, request.get("state"), self.time)

    def filled(self, values: Doubles) -> tuple[Doubles | None, bool]:
        """``_filled`` of some of the histories' values, at no cost when none is missing."""
        return (values, False) if self.complete else _filled(values)


class _State:
    """What a checked ``state`` says about the last decision of the same policy; empty if it is of another."""

    def __init__(self, policy: Policy, state: Any, time: float) -> None:
        self.last_scale_out: float | None = None
        self.rule: State | None = None
        if state is None:
            return
        _check_object("state", state, STATE_KEYS)
        identity = state.get("policy")
        if type(identity) is not dict or identity != policy.identity:
            _check_object("state.policy", identity, tuple(policy.identity))
            if dict(identity) != policy.identity:
                return
        decided_at = _state_time("state.decided_at", state.get("decided_at"))
        if state.get("last_scale_out") is not None:
            self.last_scale_out = _state_time("state.last_scale_out", state["last_scale_out"])
        if state.get("rule") is not None:
            rule = _rule_state(policy.rule, state["rule"])
            if round((time - decided_at) / policy.bundle.fleet.step_seconds) == 1:
                self.rule = rule


class _GiveWay(Exception):
    """Why the learned policy cannot decide."""


def decide(policy: Policy, request: Mapping[str, Any]) -> dict[str, Any]:
    """Decide how many machines a fleet should have.

    Args:
        policy: a loaded bundle.
        request: a JSON object:

            - ``timestamp``: when the decision is made, the end of the last completed step: ISO 8601 (UTC unless it says
              otherwise) or seconds since 1970;
            - ``observed_at``: when the last values were measured; ``timestamp`` by default;
            - ``load``, ``failed`` (requests per step), ``active``, ``pending`` (machines): lists or 1-D arrays of equal
              length, one value a step, the most recent last. ``null`` or NaN = missing; the last sizes are required;
            - ``seasonal`` (optional): requests per step by name, see ``features.seasonal_values``; what it leaves out
              is computed if the history reaches back far enough;
            - ``state`` (optional): from the previous record.

    Returns:
        The decision record, plain JSON: ``timestamp`` (ISO 8601, UTC), ``action`` (``add``, ``keep``, ``remove``),
        ``delta`` and ``desired`` (machines, active + pending), ``raw_desired`` (before guardrails), ``constraints``
        (names of those that changed it, in order), ``reason`` (a sentence), ``policy`` (name, version), ``fallback``
        (whether the rule stood in for the learned policy), ``state``.

    Raises:
        InputError: the request is not usable; the message names the field.
    """
    known = _Request(policy, request)
    load, missing = known.filled(known.load)
    raw, fallback, rule_state, reason = _propose(policy, known, load)
    constraints, desired = _guard(policy, known, load, missing, raw)
    delta = desired - known.total
    if constraints:
        reason += f"; {', '.join(constraints)} made it {desired}"
    record_state: dict[str, Any] = {
        "policy": dict(policy.identity),
        "decided_at": known.time,
        "last_scale_out": known.time if delta > 0 else known.state.last_scale_out,
    }
    if rule_state is not None:
        record_state["rule"] = {name: values[0].tolist() for name, values in rule_state.items()}
    return {
        "timestamp": dt.datetime.fromtimestamp(known.time, dt.UTC).isoformat(),
        "action": "add" if delta > 0 else "remove" if delta < 0 else "keep",
        "delta": delta,
        "desired": desired,
        "raw_desired": raw,
        "constraints": constraints,
        "reason": reason + ".",
        "policy": {"name": policy.bundle.name, "version": policy.bundle.version},
        "fallback": fallback,
        "state": record_state,
    }


def _propose(policy: Policy, known: _Request, load: Doubles | None) -> tuple[int, bool, State | None, str]:
    """The size before guardrails, whether it is a fallback, the next state of a rule that decided, and the reason."""
    if load is None:
        return known.total, True, None, f"The size of {known.total} is kept because no load is known in the history"
    bundle, refusal = policy.bundle, None
    if isinstance(bundle.policy, OnnxPart):
        try:
            size = max(known.total + _learned_step(policy, known, load), 0)
            return size, False, None, _asks(bundle, size, known.total)
        except _GiveWay as error:
            refusal = error
    size, state = _rule_size(policy, known, load)
    if refusal is None:
        return size, False, state, _asks(bundle, size, known.total)
    return size, True, state, f"Rule {policy.rule.name} asks for {size} machines because {refusal}"


def _asks(bundle: Bundle, size: int, total: int) -> str:
    return f"Policy {bundle.name} {bundle.version} asks for {size} machines with {total} there or on order"


def _learned_step(policy: Policy, known: _Request, load: Doubles) -> int:
    """Machines that the learned policy adds; raises ``_GiveWay`` when it cannot say."""
    bundle, spec, fleet = policy.bundle, policy.bundle.features, policy.bundle.fleet
    if policy.learned is None:
        raise _GiveWay(f"the learned policy could not be loaded ({policy.failure})")
    if known.age > bundle.guardrails.stale_after_seconds:
        raise _GiveWay(f"the observation is {known.age:.0f} seconds old")
    if len(load) < policy.learned_history:
        raise _GiveWay(f"the history has {len(load)} of the {policy.learned_history} steps needed")
    ordered = slice(-fleet.provisioning_delay - 1, None)
    sizes = known.active[ordered] + known.pending[ordered]
    if not known.complete:
        missing = np.count_nonzero(np.isnan(known.load[-spec.history :])) + np.count_nonzero(np.isnan(sizes))
        if missing > bundle.guardrails.max_missing:
            raise _GiveWay(f"{missing} recent values are missing, at most {bundle.guardrails.max_missing} are filled")
    seasonal: list[float] = _seasonal_rows(policy, known, load, policy.learned_seasonal, 1)[0].tolist()
    if math.isnan(sum(seasonal)):  # then one of them is
        unknown = policy.learned_seasonal[[*map(math.isnan, seasonal)].index(True)]
        raise _GiveWay(f"the seasonal value {unknown} is unknown")
    active, pending = _fleet_now(known, sizes, fleet.provisioning_delay)
    failures, _ = known.filled(known.failed)
    failed = 0.0 if failures is None else min(float(failures[-1]), float(load[-1]))
    clock = _clock(known.time, fleet.step_seconds)
    observation = policy.observer(load, seasonal, clock, active, pending, failed)
    try:
        scores: list[float] = policy.learned(observation[None])[0].tolist()
    except Exception as error:  # onnxruntime's exceptions have no narrower common base
        raise _GiveWay(f"the learned policy failed ({error})") from error
    if len(scores) != len(bundle.actions.steps) or not math.isfinite(sum(scores)):  # finite only if all are
        raise _GiveWay("the learned policy gave no finite scores")
    return bundle.actions.steps[scores.index(max(scores))]


def _fleet_now(known: _Request, sizes: Doubles, delay: int) -> tuple[float, list[float]]:
    """Active machines and the queue of pending ones, as an ``Observer`` takes them.

    The queue is what the recent sizes say, corrected to the pending machines reported: orders that arrived early are
    taken from its front, orders that are overdue are expected next. Without a delay nothing is ever pending.
    """
    filled, _ = known.filled(sizes)
    assert filled is not None  # the last size is always known
    queue = pending_queue(filled.tolist(), delay)
    active, pending = float(known.active[-1]), float(known.pending[-1])
    if not queue:
        return active + pending, queue
    surplus = sum(queue) - pending
    if surplus < 0.0:
        queue[0] -= surplus
    for slot in range(delay if surplus > 0.0 else 0):
        early = min(queue[slot], surplus)
        queue[slot] -= early
        surplus -= early
    return active, queue


def _rule_size(policy: Policy, known: _Request, load: Doubles) -> tuple[int, State]:
    """The size that the rule wants, and its next state."""
    rule, state = policy.rule, known.state.rule
    replay = min(rule.memory, len(load) - 1) if state is None else 0
    active, _ = known.filled(known.active[-replay - 1 :])
    pending, _ = known.filled(known.pending[-replay - 1 :])
    assert active is not None and pending is not None  # the last sizes are always known
    recent = load[-replay - 1 :]
    seasonal = _seasonal_rows(policy, known, load, rule.seasonal, replay + 1).T

    def part(steps: slice) -> Fleets:
        by_name = dict(zip(rule.seasonal, seasonal[:, steps], strict=True))
        return Fleets(recent[steps], active[steps], pending[steps], by_name)

    if state is None:
        state = rule.state_after(part(slice(replay))) if replay else rule.initial_state(1)
    wanted, state = rule.desired(part(slice(replay, None)), state)
    return int(wanted[0]), state


def _seasonal_rows(policy: Policy, known: _Request, load: Doubles, names: Sequence[str], count: int) -> Doubles:
    """Seasonal values of the last ``count`` decisions, shape ``(count, names)``; NaN = unknown.

    Values of the request hold for the present decision alone; the others come from the history.
    """
    given = [known.seasonal.get(name, math.nan) for name in names]
    now = np.array([given])
    if count == 1 and not math.isnan(sum(given)):
        return now
    bundle = policy.bundle
    values = np.full((count, len(names)), np.nan)
    if len(load) >= bundle.fleet.steps_per_day:
        first = len(load) - count + 1
        clock = np.array([_clock(known.time, bundle.fleet.step_seconds) - len(load)])
        path = load.astype(np.float32)[:, None]
        values[:] = seasonal_values(path, first, count, names, bundle.features, bundle.fleet, clock)[:, :, 0]
    values[-1:] = np.where(np.isnan(now), values[-1:], now)
    return values


def _guard(policy: Policy, known: _Request, load: Doubles | None, missing: bool, desired: int) -> tuple[list[str], int]:
    """Apply the guardrails: the names of those that changed the size, in order, and the size."""
    limits, fleet, total = policy.bundle.guardrails, policy.bundle.fleet, known.total
    constraints: list[str] = []
    if total <= desired <= total + limits.max_step_up and fleet.min_machines <= desired <= fleet.max_machines:
        return constraints, desired  # as mostly

    def restrict(name: str, size: int) -> None:
        nonlocal desired
        if size != desired:
            constraints.append(name)
            desired = size

    if desired < total:
        last_scale_out = known.state.last_scale_out
        since = math.inf if last_scale_out is None else (known.time - last_scale_out) / fleet.step_seconds
        if missing or known.failed[-1] != known.failed[-1]:
            restrict("missing_data", total)
        elif known.age > limits.stale_after_seconds:
            restrict("stale_data", total)
        elif load is not None and _is_abnormal(load, limits.abnormal_drop, limits.abnormal_steps):
            restrict("abnormal_data", total)
        elif limits.scale_in_hold and 0.0 <= since < limits.scale_in_hold + 0.5:  # half a step for a caller's clock
            restrict("scale_in_hold", total)
    restrict("max_step_up", min(desired, total + limits.max_step_up))
    restrict("max_step_down", max(desired, total - limits.max_step_down))
    restrict("max_machines", min(desired, fleet.max_machines))
    restrict("min_machines", max(desired, fleet.min_machines))
    return constraints, desired


def _is_abnormal(load: Doubles, drop: float, steps: int) -> bool:
    """Whether the load fell below ``drop`` x its recent median fewer than ``steps`` steps ago and has stayed there."""
    recent = load[-steps - _MEDIAN_STEPS :].tolist()
    for length in range(1, min(steps, len(recent))):
        before = sorted(recent[-length - _MEDIAN_STEPS : -length])
        threshold = drop * before[len(before) // 2]
        if recent[-length] >= threshold:
            return False
        if recent[-length - 1] >= threshold:
            return True
    return False


def _filled(values: Doubles) -> tuple[Doubles | None, bool]:
    """The values with gaps filled (forward, at the start backward), and whether the last one was missing.

    ``None`` if all are missing.
    """
    known = values == values
    if np.logical_and.reduce(known):
        return values, False
    if not known.any():
        return None, True
    index = np.where(known, np.arange(len(values)), 0)
    index = np.maximum(np.maximum.accumulate(index), int(known.argmax()))
    return values[index], not bool(known[-1])


def _clock(time: float, step_seconds: int) -> int:
    """The step of the week that begins at ``time``, counted from Monday 00:00 UTC."""
    return int((time + _MONDAY) % _WEEK_SECONDS // step_seconds)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def _is_amount(value: Any) -> bool:
    """Whether a value is a number of requests or machines."""
    return (type(value) is float or _is_number(value)) and 0.0 <= value <= MAX_VALUE


def _time(name: str, value: Any) -> float:
    """Seconds since 1970 of an ISO 8601 text or a number."""
    if isinstance(value, str):
        try:
            moment = dt.datetime.fromisoformat(value)
        except ValueError as error:
            raise InputError(name, f"{value!r:.80} is not an ISO 8601 time") from error
        value = (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp()
    if not _is_number(value):
        raise InputError(name, f"expected an ISO 8601 text or seconds since 1970, got {type(value).__name__}")
    if not 0.0 <= value <= MAX_TIME:
        raise InputError(name, f"{value} is not between the years 1970 and 3000")
    return float(value)


def _histories(request: Mapping[str, Any], steps_per_day: int) -> tuple[Doubles, bool]:
    """The checked histories, and whether they are known to be complete.

    Returns:
        Shape ``(4, steps)`` in the order of ``HISTORIES``, NaN where a value is missing; ``True`` if there is no NaN.
    """
    histories, longest = [request[name] for name in HISTORIES], MAX_DAYS * steps_per_day
    table = _plain_table(histories, longest)
    if table is None:
        table = _checked_table(histories, longest)
    # As unsigned integers the bits of floats are in the order of the floats from 0 up; those of negative ones and of
    # NaN are larger still. So one reduction tells that all is well; and to compare bytes is to spare another one.
    machines = table[2:]
    in_range = np.maximum.reduce(table.view(np.uint64), axis=None) <= _MAX_BITS
    complete = bool(in_range) and np.floor(machines).tobytes() == machines.tobytes()
    if not complete:
        _refuse_bad_values(table)
    return table, complete


def _plain_table(histories: Sequence[Any], longest: int) -> Doubles | None:
    """The table that four equally long lists of plain numbers make up; ``None`` if they are anything else.

    It is there to be fast: ``count`` finds types, and ``struct`` reads numbers, in less time than loops or NumPy.
    """
    if set(map(type, histories)) != {list} or not 0 < (steps := len(histories[0])) <= longest:
        return None
    for values in histories:
        types = [*map(type, values)]
        floats = types.count(float)
        if len(types) != steps or (floats < steps and floats + types.count(int) < steps):
            return None
    try:
        rows = [struct.pack(f"{steps}d", *values) for values in histories]
    except struct.error:  # an integer that no float can hold
        return None
    return np.frombuffer(b"".join(rows), np.float64).reshape(4, steps)


def _checked_table(histories: Sequence[Any], longest: int) -> Doubles:
    """The table that four histories of any valid kind make up; raises ``InputError`` for the first invalid one."""
    for name, values in zip(HISTORIES, histories, strict=True):
        if isinstance(values, np.ndarray):
            if values.ndim != 1 or values.dtype.kind not in "iuf":
                raise InputError(name, f"expected a 1-D array of numbers, got {values.ndim}-D {values.dtype}")
        elif not isinstance(values, (list, tuple)):
            raise InputError(name, f"expected a list of numbers, got {type(values).__name__}")
        elif not set(map(type, values)) <= {int, float, NoneType}:
            for index, value in enumerate(values):
                if value is not None and not _is_number(value):
                    raise InputError(f"{name}[{index}]", f"expected a number, got {value!r:.80}")
        if not 0 < len(values) <= longest:
            raise InputError(name, f"has {len(values)} values, expected 1 to {longest}")
        if len(values) != len(histories[0]):
            raise InputError(name, f"has {len(values)} values, load has {len(histories[0])}")
    try:
        return np.array(histories, np.float64)  # None becomes NaN
    except OverflowError as error:
        raise InputError("load, failed, active or pending", f"holds a number above {MAX_VALUE:g}") from error


def _refuse_bad_values(table: Doubles) -> None:
    """Raise ``InputError`` for the first value that is out of range, not whole, or missing where it must not be."""
    for row, index in np.argwhere((table < 0.0) | (table > MAX_VALUE))[:1]:
        raise InputError(f"{HISTORIES[row]}[{index}]", f"{table[row, index]:g} is not between 0 and {MAX_VALUE:g}")
    for row, index in np.argwhere(table[2:] % 1.0 > 0.0)[:1]:
        raise InputError(
            f"{HISTORIES[row + 2]}[{index}]", f"{table[row + 2, index]:g} is not a whole number of machines"
        )
    for row in (2, 3):
        if math.isnan(table[row, -1]):
            raise InputError(f"{HISTORIES[row]}[{table.shape[1] - 1}]", "the most recent value is required")


def _seasonal(policy: Policy, values: Any) -> dict[str, float]:
    """Checked seasonal values, those that are ``null`` left out. Names that the policy does not read are accepted."""
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        raise InputError("seasonal", f"expected an object, got {type(values).__name__}")
    result = {}
    for name, value in values.items():
        if name not in policy.seasonal_set:
            try:
                seasonal_history((name,), policy.bundle.features, policy.bundle.fleet)
            except (ValueError, TypeError) as error:
                raise InputError(f"seasonal.{name}", str(error)) from error
        if _is_amount(value):
            result[name] = float(value)
        elif not (value is None or (_is_number(value) and value != value)):
            raise InputError(f"seasonal.{name}", f"expected a number from 0 to {MAX_VALUE:g}, got {value!r:.80}")
    return result


def _check_object(name: str, value: Any, keys: Sequence[str]) -> None:
    if not isinstance(value, Mapping):
        raise InputError(name, f"expected an object, got {type(value).__name__}")
    for key in value:
        if key not in keys:
            raise InputError(f"{name}.{key}", f"unknown key, known: {', '.join(keys)}")


def _state_time(name: str, value: Any) -> float:
    if not _is_number(value) or not 0.0 <= value <= MAX_TIME:
        raise InputError(name, f"expected seconds since 1970, got {value!r:.80}")
    return float(value)


def _rule_state(rule: Rule, values: Any) -> State:
    """A rule's state of one fleet, after checking that it has the names and sizes that the rule's state has."""
    initial = rule.initial_state(1)
    _check_object("state.rule", values, tuple(initial))
    state = {}
    for name, array in initial.items():
        field, value, shape = f"state.rule.{name}", values.get(name), array.shape[1:]
        items = value if shape else [value]
        if not isinstance(items, list) or (shape and len(items) != shape[0]):
            raise InputError(field, f"expected a list of {shape[0]} numbers, got {value!r:.80}")
        if not all(map(_is_amount, items)):
            raise InputError(field, f"expected numbers from 0 to {MAX_VALUE:g}, got {value!r:.80}")
        state[name] = np.array(items, np.float64).reshape(array.shape)
    return state
