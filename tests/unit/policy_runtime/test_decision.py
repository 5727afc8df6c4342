from __future__ import annotations

import copy
import dataclasses
import datetime as dt
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy_runtime import Bundle, BundleError, InputError, Policy, builtin_bundle, decide
from policy_runtime.bundle import Interface, OnnxPart, RulePart
from policy_runtime.features import exogenous_features, feature_names, observe, seasonal_values
from policy_runtime.rules import RULES
from policy_runtime.spec import ActionSpec, FeatureSpec, FleetSpec, GuardrailSpec

TIME = 1_772_445_600  # Monday 2026-03-02 10:00 UTC
FLEET = FleetSpec(throughput=100.0)


def rule_policy(rule: str = "target_tracking", guardrails: GuardrailSpec | None = None, **parameters: Any) -> Policy:
    if rule == "target_tracking":
        parameters = {"out_periods": 1, "in_periods": 1} | parameters
    return Policy(
        Bundle(
            name="rules",
            version="1",
            policy=RulePart(rule, parameters),
            fleet=FLEET,
            guardrails=guardrails or GuardrailSpec(),
        )
    )


def request(load: Any, active: Any = 10, pending: Any = 0, **more: Any) -> dict[str, Any]:
    """A request; a single number of machines stands for a constant history."""
    steps = len(load)
    sizes = {"active": active, "pending": pending}
    return {
        "timestamp": TIME,
        "load": load,
        "failed": [0] * steps,
        **{name: [value] * steps if isinstance(value, int) else value for name, value in sizes.items()},
        **more,
    }


class TestRecord:
    def test_a_scale_out_is_described(self) -> None:
        record = decide(rule_policy(), request([900.0]))
        state = record.pop("state")
        assert record == {
            "timestamp": "2026-03-02T10:00:00+00:00",
            "action": "add",
            "delta": 5,
            "desired": 15,
            "raw_desired": 15,
            "constraints": [],
            "reason": "Policy rules 1 asks for 15 machines with 10 there or on order.",
            "policy": {"name": "rules", "version": "1"},
            "fallback": False,
        }
        assert state == {
            "policy": {"name": "rules", "version": "1", "rule": "target_tracking"},
            "decided_at": TIME,
            "last_scale_out": TIME,
            "rule": {"above": 1.0, "below": 0.0},
        }

    @pytest.mark.parametrize(
        ("load", "action", "delta"), [(900.0, "add", 5), (600.0, "keep", 0), (300.0, "remove", -5)]
    )
    def test_action_and_delta_agree(self, load: float, action: str, delta: int) -> None:
        record = decide(rule_policy(), request([load]))
        assert (record["action"], record["delta"], record["desired"]) == (action, delta, 10 + delta)

    @pytest.mark.parametrize(
        "timestamp",
        [
            TIME,
            float(TIME),
            np.float64(TIME),
            "2026-03-02T10:00:00Z",
            "2026-03-02T10:00:00",
            "2026-03-02T11:00:00+01:00",
        ],
    )
    def test_a_time_may_be_written_in_many_ways(self, timestamp: Any) -> None:
        record = decide(rule_policy(), request([900.0], timestamp=timestamp))
        assert record["timestamp"] == "2026-03-02T10:00:00+00:00"

    def test_lists_and_arrays_give_the_same_record(self, learned_bundle) -> None:
        weights = np.random.default_rng(1).normal(size=(23, 6))
        for policy in (rule_policy("hybrid"), Policy(learned_bundle(weights=weights))):
            lists = request(np.random.default_rng(0).gamma(2, 300, 60).tolist())
            arrays = {key: np.array(value) if isinstance(value, list) else value for key, value in lists.items()}
            assert decide(policy, lists) == decide(policy, arrays)

    @settings(max_examples=50, deadline=None)
    @given(
        load=st.lists(st.one_of(st.floats(0, 1e12), st.integers(0, 10**12)), min_size=1, max_size=20),
        rule=st.sampled_from(sorted(RULES)),
    )
    def test_lists_tuples_and_arrays_are_read_alike(self, load: list[float], rule: str) -> None:
        # Lists of plain numbers are read on a path of their own.
        policy, lists = rule_policy(rule), request(load)
        tuples = {key: tuple(value) if isinstance(value, list) else value for key, value in lists.items()}
        arrays = {key: np.array(value, float) if isinstance(value, list) else value for key, value in lists.items()}
        assert decide(policy, lists) == decide(policy, tuples) == decide(policy, arrays)


class TestInput:
    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"lod": []}, "lod"),
            ({"load": None}, "load"),
            ({"load": []}, "load"),
            ({"load": "600"}, "load"),
            ({"load": [600.0, "600"]}, "load[1]"),
            ({"load": [600.0, True]}, "load[1]"),
            ({"failed": [0, False]}, "failed[1]"),
            ({"load": [600.0, 10**13]}, "load[1]"),
            ({"load": (600.0, -1.0)}, "load[1]"),
            ({"load": np.array([600.0, math.inf])}, "load[1]"),
            ({"pending": np.array([0.0, 0.5])}, "pending[1]"),
            ({"active": [10.5, None]}, "active[0]"),
            ({"load": [[600.0], [600.0]]}, "load[0]"),
            ({"load": [600.0, -1.0]}, "load[1]"),
            ({"load": [math.inf, 600.0]}, "load[0]"),
            ({"load": [10**400, 600.0]}, "load, failed, active or pending"),
            ({"load": np.ones((2, 1))}, "load"),
            ({"load": np.array([True, False])}, "load"),
            ({"load": [1.0] * 41_761}, "load"),
            ({"failed": [0]}, "failed"),
            ({"failed": [0, None, 0]}, "failed"),
            ({"active": [10, 10.5]}, "active[1]"),
            ({"active": [10, None]}, "active[1]"),
            ({"pending": [0, math.nan]}, "pending[1]"),
            ({"pending": [-1, 0]}, "pending[0]"),
            ({"timestamp": "yesterday"}, "timestamp"),
            ({"timestamp": None}, "timestamp"),
            ({"timestamp": True}, "timestamp"),
            ({"timestamp": -1}, "timestamp"),
            ({"timestamp": math.nan}, "timestamp"),
            ({"observed_at": "x"}, "observed_at"),
            ({"observed_at": TIME + 61}, "observed_at"),
            ({"seasonal": []}, "seasonal"),
            ({"seasonal": {"day1_min": 1.0}}, "seasonal.day1_min"),
            ({"seasonal": {"day1_max": -1.0}}, "seasonal.day1_max"),
            ({"seasonal": {"day1_max": "1"}}, "seasonal.day1_max"),
            ({"state": []}, "state"),
            ({"state": {"x": 1}}, "state.x"),
            ({"state": {}}, "state.policy"),
            ({"state": {"policy": {"author": 1}}}, "state.policy.author"),
        ],
    )
    def test_a_wrong_field_is_named(self, change: dict[str, Any], field: str) -> None:
        with pytest.raises(InputError) as error:
            decide(rule_policy(), request([600.0, 600.0]) | change)
        assert error.value.field == field
        assert str(error.value).startswith(f"{field}: ")

    @pytest.mark.parametrize("field", ["timestamp", "load", "failed", "active", "pending"])
    def test_required_fields_are_named(self, field: str) -> None:
        body = request([600.0])
        del body[field]
        with pytest.raises(InputError, match=f"{field}: is required"):
            decide(rule_policy(), body)

    def test_a_request_is_an_object(self) -> None:
        with pytest.raises(InputError, match="request: expected an object, got list"):
            decide(rule_policy(), [])

    @pytest.mark.parametrize(
        ("rule", "change", "field"),
        [
            ("hybrid", {"rule": {"wanted": [1.0] * 14}}, "state.rule.wanted"),
            ("hybrid", {"rule": {"wanted": 1.0}}, "state.rule.wanted"),
            ("hybrid", {"rule": {}}, "state.rule.wanted"),
            ("hybrid", {"rule": {"wanted": [math.nan] * 15}}, "state.rule.wanted"),
            ("hybrid", {"rule": {"wanted": [-1.0] * 15}}, "state.rule.wanted"),
            ("hybrid", {"rule": {"wanted": ["1"] * 15}}, "state.rule.wanted"),
            ("hybrid", {"rule": {"wanted": [1.0] * 15, "more": 1}}, "state.rule.more"),
            ("hybrid", {"rule": 1}, "state.rule"),
            ("hybrid", {"decided_at": None}, "state.decided_at"),
            ("hybrid", {"last_scale_out": "now"}, "state.last_scale_out"),
            ("target_tracking", {"rule": {"above": [1.0], "below": 0.0}}, "state.rule.above"),
        ],
    )
    def test_a_bad_state_is_named(self, rule: str, change: dict[str, Any], field: str) -> None:
        policy = rule_policy(rule)
        state = decide(policy, request([600.0]))["state"]
        with pytest.raises(InputError) as error:
            decide(policy, request([600.0], state=state | change))
        assert error.value.field == field

    def test_a_policy_of_a_users_own_environment_does_not_scale_fleets(self) -> None:
        bundle = Bundle(
            name="pendulum",
            version="1",
            kind="generic",
            policy=OnnxPart(),
            interface=Interface(observation_size=3),
        )
        with pytest.raises(BundleError, match="policy 'pendulum' is of kind 'generic'"):
            Policy(bundle)


class TestState:
    def test_a_carried_state_continues_the_rule(self) -> None:
        policy = rule_policy(out_periods=3)
        state, sizes = None, []
        for step in range(4):
            record = decide(policy, request([900.0], timestamp=TIME + 60 * step, state=state))
            state = json.loads(json.dumps(record["state"]))
            sizes.append(record["desired"])
        assert sizes == [10, 10, 15, 15]

    def test_without_state_the_rule_is_warmed_up_on_the_history(self) -> None:
        policy = rule_policy(out_periods=3)
        assert decide(policy, request([900.0] * 2))["desired"] == 10
        assert decide(policy, request([900.0] * 3))["desired"] == 15
        assert decide(policy, request([900.0, 600.0, 900.0, 900.0]))["desired"] == 10

    @pytest.mark.parametrize("rule", RULES)
    def test_carrying_the_state_equals_sending_the_history(self, rule: str) -> None:
        policy = rule_policy(rule, **({"out_periods": 3, "in_periods": 15} if rule == "target_tracking" else {}))
        load = np.random.default_rng(5).gamma(4, 150, 40).tolist()
        state = None
        for step in range(40):
            now = TIME + 60 * step
            carried = decide(policy, request([load[step]], timestamp=now, state=state))
            state = carried["state"]
        replayed = decide(policy, request(load, timestamp=TIME + 60 * 39))
        assert (carried["desired"], state.get("rule")) == (replayed["desired"], replayed["state"].get("rule"))

    @pytest.mark.parametrize("gap", [0, 120, -60, 86_400])
    def test_a_state_that_is_not_one_step_old_does_not_continue_the_rule(self, gap: int) -> None:
        policy = rule_policy(out_periods=2)
        state = decide(policy, request([900.0]))["state"]
        assert decide(policy, request([900.0], timestamp=TIME + gap, state=state))["desired"] == 10
        assert decide(policy, request([900.0], timestamp=TIME + 61, state=state))["desired"] == 15

    def test_the_state_of_another_policy_is_ignored(self) -> None:
        policy = rule_policy(out_periods=2)
        state = decide(policy, request([900.0]))["state"]
        for name, value in (("name", "other"), ("version", "2"), ("rule", "hybrid")):
            other = state | {"policy": state["policy"] | {name: value}, "rule": {"anything": 1}}
            record = decide(policy, request([900.0], timestamp=TIME + 60, state=other))
            assert record["desired"] == 10 and record["state"]["last_scale_out"] is None


class TestGuardrails:
    def test_steps_are_limited(self) -> None:
        limits = GuardrailSpec(max_step_up=3, max_step_down=2)
        up, down = (decide(rule_policy(guardrails=limits), request([load])) for load in (900.0, 300.0))
        assert (up["desired"], up["raw_desired"], up["constraints"]) == (13, 15, ["max_step_up"])
        assert (down["desired"], down["raw_desired"], down["constraints"]) == (8, 5, ["max_step_down"])
        assert up["reason"].endswith("; max_step_up made it 13.")

    @pytest.mark.parametrize(("active", "limit"), [(150, 120), (0, 8)])
    def test_a_fleet_outside_its_limits_is_brought_back_at_once(self, active: int, limit: int) -> None:
        bundle = dataclasses.replace(
            rule_policy("static", machines=100 if active else 0).bundle,
            fleet=FleetSpec(throughput=100.0, min_machines=8, max_machines=120),
            guardrails=GuardrailSpec(max_step_up=2, max_step_down=2),
        )
        record = decide(Policy(bundle), request([None], active=active))
        assert record["desired"] == limit
        assert record["constraints"][-1] == ("max_machines" if active else "min_machines")

    def test_no_scale_in_within_the_hold_after_a_scale_out(self) -> None:
        policy = rule_policy(guardrails=GuardrailSpec(scale_in_hold=2))
        state = decide(policy, request([900.0]))["state"]
        records = []
        for step in (1, 2, 3):
            records.append(decide(policy, request([300.0], timestamp=TIME + 60 * step, state=state)))
            state = records[-1]["state"]
        assert [record["delta"] for record in records] == [0, 0, -5]
        assert [record["constraints"] for record in records] == [["scale_in_hold"], ["scale_in_hold"], []]

    @pytest.mark.parametrize("field", ["load", "failed"])
    def test_no_scale_in_when_the_last_value_is_missing(self, field: str) -> None:
        body = request([300.0, 300.0])
        body[field] = [body[field][0], None]
        record = decide(rule_policy(), body)
        assert (record["raw_desired"], record["desired"], record["constraints"]) == (5, 10, ["missing_data"])

    def test_scale_out_goes_on_when_the_last_value_is_missing(self) -> None:
        assert decide(rule_policy(), request([900.0, None]))["delta"] == 5

    def test_no_scale_in_on_stale_data(self) -> None:
        fresh, stale = (decide(rule_policy(), request([300.0], observed_at=TIME - age)) for age in (180, 181))
        assert (fresh["delta"], stale["delta"], stale["constraints"]) == (-5, 0, ["stale_data"])

    def test_no_scale_in_until_a_sudden_drop_has_lasted(self) -> None:
        loads = [600.0] * 20 + [100.0] * 6
        records = [decide(rule_policy(), request(loads[:end])) for end in range(20, 27)]
        assert [record["constraints"] for record in records] == [[], *([["abnormal_data"]] * 4), [], []]
        assert [record["delta"] for record in records] == [0, 0, 0, 0, 0, -8, -8]

    def test_a_gradual_fall_is_not_abnormal(self) -> None:
        loads = [1000.0 * 0.9**step for step in range(40)]
        for end in range(2, 41):
            assert "abnormal_data" not in decide(rule_policy(), request(loads[:end], active=20))["constraints"]

    def test_a_moderate_drop_is_not_abnormal(self) -> None:
        assert decide(rule_policy(), request([600.0] * 20 + [120.0]))["delta"] == -8

    def test_a_fleet_whose_load_was_never_known_is_kept(self) -> None:
        record = decide(rule_policy(), request([None, math.nan]))
        assert (record["delta"], record["fallback"]) == (0, True)
        assert record["reason"] == "The size of 10 is kept because no load is known in the history."


class TestLearnedPolicy:
    @pytest.mark.parametrize(("best", "step"), list(enumerate(ActionSpec().steps)))
    def test_the_largest_score_is_the_step(self, learned_bundle, best: int, step: int) -> None:
        bias = [0.0] * 6
        bias[best] = 1.0
        record = decide(Policy(learned_bundle(bias)), request([6000.0] * 60, active=20))
        assert (record["delta"], record["fallback"], record["constraints"]) == (step, False, [])
        assert "rule" not in record["state"]

    def test_the_observation_is_that_of_the_features_module(self, linear_model) -> None:
        # One action's score is one feature less a value just below it, so that the action tells the feature's value.
        spec, fleet = FeatureSpec(), FleetSpec()
        names = feature_names(spec, fleet)
        rng = np.random.default_rng(2)
        load = rng.gamma(9, 600, 7 * 1440 + 100).astype(np.float32)
        size = np.full(60, 20.0)
        size[-4:] += 3  # ordered four steps ago
        active, pending = np.full(60, 20.0), size - 20.0
        clock = np.array([10 * 60])
        path = load[:, None]
        exogenous = exogenous_features(path, len(load), 1, spec, fleet, (clock - len(load)) % 10_080)
        queue = np.array([[0], [3], [0], [0], [0]], np.float32)
        last = path[-1]
        expected = observe(exogenous[0], spec, np.array([20.0], np.float32), queue, last, last * np.float32(0.25))[:, 0]
        body = {
            "timestamp": TIME,
            "load": load,
            "failed": load * 0.25,
            "active": np.concatenate([np.full(len(load) - 60, 20.0), active]),
            "pending": np.concatenate([np.zeros(len(load) - 60), pending]),
        }
        for index, name in enumerate(names):
            weights = np.zeros((len(names), 3), np.float32)
            weights[index, 0], weights[index, 2] = -1.0, 1.0
            for shift, step in ((-1e-4, 1), (1e-4, -1)):
                bias = np.array([expected[index], 0.0, -expected[index]]) + np.array([shift, 0, -shift])
                bundle = Bundle(
                    name="probe",
                    version="1",
                    policy=OnnxPart(),
                    actions=ActionSpec(steps=(-1, 0, 1)),
                    files={"policy.onnx": linear_model(weights, bias)},
                )
                record = decide(Policy(bundle), body)
                assert (record["raw_desired"] - 23, record["fallback"]) == (step, False), name

    def test_seasonal_values_of_the_request_replace_a_long_history(self, linear_model) -> None:
        spec, fleet = FeatureSpec(), FleetSpec()
        load = np.random.default_rng(4).gamma(9, 600, 7 * 1440 + 100)
        weights = np.random.default_rng(5).normal(size=(len(feature_names(spec, fleet)), 6))
        bundle = Bundle(name="w", version="1", policy=OnnxPart(), files={"policy.onnx": linear_model(weights)})
        policy = Policy(bundle)
        long = decide(policy, request(load, active=20))
        names = policy.learned_seasonal
        clock = np.array([0])
        values = seasonal_values(load.astype(np.float32)[:, None], len(load), 1, names, spec, fleet, clock)[0, :, 0]
        seasonal = dict(zip(names, values.tolist(), strict=True))
        short = decide(policy, request(load[-60:], active=20, seasonal=seasonal))
        assert long["fallback"] is short["fallback"] is False
        assert long["delta"] == short["delta"]

    def reason(self, bundle: Bundle, body: dict[str, Any]) -> str:
        record = decide(Policy(bundle), body)
        assert record["fallback"] is True
        assert record["raw_desired"] == 29  # 6000 / (0.7 x 300), by the hybrid rule
        assert record["reason"].startswith("Rule hybrid asks for 29 machines because ")
        return str(record["reason"])

    def test_the_rule_decides_when_the_learned_policy_cannot(self, learned_bundle, linear_model) -> None:
        good = request([6000.0] * 60, active=28)
        bundle = learned_bundle()
        assert "history has 59 of the 60 steps" in self.reason(bundle, request([6000.0] * 59, active=28))
        assert "is 181 seconds old" in self.reason(bundle, good | {"observed_at": TIME - 181})
        gaps = [*[6000.0] * 55, None, None, None, None, 6000.0]
        assert "4 recent values are missing, at most 3" in self.reason(bundle, good | {"load": gaps})
        assert "could not be loaded (policy.onnx is missing)" in self.reason(
            dataclasses.replace(bundle, files={}), good
        )
        assert "could not be loaded (policy.onnx: onnxruntime" in self.reason(
            dataclasses.replace(bundle, files={"policy.onnx": b"x"}), good
        )
        for bad in (math.nan, math.inf):
            assert "gave no finite scores" in self.reason(learned_bundle([0, 0, bad, 0, 0, 0]), good)
        seasonal = learned_bundle(features=FeatureSpec())
        assert "the seasonal value day1_max is unknown" in self.reason(seasonal, good)

    def test_a_fleet_without_delay_has_no_queue(self, learned_bundle) -> None:
        bundle = learned_bundle([0, 0, 0, 0, 1, 0], fleet=FleetSpec(provisioning_delay=0))
        record = decide(Policy(bundle), request([6000.0] * 60, active=20, pending=1))
        assert (record["desired"], record["fallback"]) == (24, False)

    def test_an_error_of_onnxruntime_is_a_reason_to_fall_back(self, learned_bundle) -> None:
        policy = Policy(learned_bundle())
        # A graph for another number of features than the specification says: onnxruntime refuses its input.
        policy.learned = Policy(learned_bundle(features=FeatureSpec(seasonal_days=(), lags=(1,)))).learned
        record = decide(policy, request([6000.0] * 60))
        assert record["fallback"] is True
        assert "the learned policy failed (" in record["reason"]

    def test_a_few_missing_values_are_filled(self, learned_bundle) -> None:
        load = [6000.0] * 60
        load[10] = load[20] = load[30] = None
        assert decide(Policy(learned_bundle()), request(load))["fallback"] is False

    def test_a_fallback_continues_with_its_state_and_the_learned_policy_drops_it(self, learned_bundle) -> None:
        policy = Policy(learned_bundle([0, 0, 1, 0, 0, 0]))
        first = decide(policy, request([6000.0], active=20))
        assert first["fallback"] is True and first["state"]["rule"]["wanted"][-1] == 29.0
        second = decide(policy, request([300.0], active=20, timestamp=TIME + 60, state=first["state"]))
        assert second["raw_desired"] == 29  # held
        third = decide(policy, request([300.0] * 60, active=20, timestamp=TIME + 120, state=second["state"]))
        assert third["fallback"] is False and "rule" not in third["state"]

    def test_orders_that_are_early_or_late_are_reconciled_with_the_pending_machines(self, learned_bundle) -> None:
        # Weights on the queue alone: the score of +1 counts what arrives next, that of -1 what arrives last.
        names = feature_names(FeatureSpec(seasonal_days=()), FleetSpec())
        weights = np.zeros((len(names), 6))
        weights[names.index("pending_in_1"), 3] = weights[names.index("pending_in_5"), 1] = 1.0
        policy = Policy(learned_bundle(weights=weights))
        late = request([6000.0] * 60, active=20, pending=4)  # ordered longer ago than the delay
        assert decide(policy, late)["delta"] == 1
        sizes = [20] * 59 + [24]
        just_ordered = request([6000.0] * 60, active=[20] * 60, pending=[size - 20 for size in sizes])
        assert decide(policy, just_ordered)["delta"] == -1
        early = request([6000.0] * 60, active=sizes, pending=0)
        assert decide(policy, early)["delta"] == -3  # nothing pending, all scores 0: the first action


def test_the_builtin_policy_prepares_for_the_season() -> None:
    policy = Policy(builtin_bundle())
    seasonal = {f"day{day}_max": 8400.0 for day in range(1, 8)}
    assert set(seasonal) == set(policy.seasonal)
    assert decide(policy, request([6000.0], active=30, seasonal=seasonal))["desired"] == 40
    day = np.full(1500, 6000.0)
    day[1500 - 1440 + 5] = 8400.0  # the time at which an order made now first serves, a day ago
    assert decide(policy, request(day, active=30))["desired"] == 40


values = st.one_of(st.none(), st.just(math.nan), st.floats(0, 20_000), st.integers(0, 20_000))


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    steps = draw(st.integers(1, 30))
    series = {
        "load": st.lists(values, min_size=steps, max_size=steps),
        "failed": st.lists(values, min_size=steps, max_size=steps),
        "active": st.lists(st.integers(0, 60), min_size=steps, max_size=steps),
        "pending": st.lists(st.integers(0, 20), min_size=steps, max_size=steps),
    }
    names = st.sampled_from(["day1_max", "day2_max", "day1_hour", "day7_mean"])
    return {
        "timestamp": draw(st.integers(0, 2_000_000_000)),
        **{name: draw(strategy) for name, strategy in series.items()},
        "seasonal": draw(st.dictionaries(names, values)),
    }


@settings(max_examples=200, deadline=None)
@given(
    rule=st.sampled_from(sorted(RULES)),
    body=requests(),
    age=st.integers(0, 400),
    hold=st.integers(0, 10),
    since=st.one_of(st.none(), st.integers(0, 20)),
)
def test_guardrails_hold_whatever_comes(
    rule: str, body: dict[str, Any], age: int, hold: int, since: int | None
) -> None:
    limits = GuardrailSpec(max_step_up=4, max_step_down=2, scale_in_hold=hold)
    fleet = FleetSpec(throughput=100.0, min_machines=5, max_machines=50)
    policy = Policy(Bundle(name="r", version="1", policy=RulePart(rule), fleet=fleet, guardrails=limits))
    now = body["timestamp"] + 2000
    scale_out = None if since is None else now - 60 * since
    state = {"policy": policy.identity, "decided_at": now - 60, "last_scale_out": scale_out}
    body |= {"timestamp": now, "observed_at": now - age, "state": dict(state)}
    before = copy.deepcopy(body)
    record = decide(policy, body)
    np.testing.assert_equal(body, before)
    assert decide(policy, body) == record
    assert json.loads(json.dumps(record, allow_nan=False)) == record

    total = body["active"][-1] + body["pending"][-1]
    assert record["desired"] == total + record["delta"]
    assert 5 <= record["desired"] <= 50
    forced = total < 5 or total > 50
    if not forced:
        assert -2 <= record["delta"] <= 4
    missing = any(body[name][-1] is None or math.isnan(body[name][-1]) for name in ("load", "failed"))
    held = since is not None and hold > 0 and since <= hold
    if not forced and (missing or age > 180 or held):
        assert record["delta"] >= 0
    assert (record["raw_desired"] != record["desired"]) <= bool(record["constraints"])
    # The record's state is accepted by the next request.
    following = body | {"timestamp": now + 60, "observed_at": now + 60, "state": record["state"]}
    assert decide(policy, following)["policy"] == {"name": "r", "version": "1"}
    assert dt.datetime.fromisoformat(record["timestamp"]).timestamp() == now
