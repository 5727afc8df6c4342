"""Hand-computed sequences; a machine serves 100 requests a step, so that loads read as percent of one machine."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy_runtime.rules import RULES, Fleets, Rule, make_rule, make_rules
from policy_runtime.spec import FleetSpec

FLEET = FleetSpec(throughput=100.0, min_machines=1, max_machines=100)


def run(rule: Rule, steps: list[tuple[float, int, int]], seasonal: dict[str, float] | None = None) -> list[int]:
    """Desired sizes for (load, active, pending) step by step."""
    state, sizes = rule.initial_state(1), []
    values = {name: np.array([(seasonal or {}).get(name, np.nan)]) for name in rule.seasonal}
    for load, active, pending in steps:
        arrays = (np.array([float(value)]) for value in (load, active, pending))
        desired, state = rule.desired(Fleets(*arrays, values), state)
        sizes.append(int(desired[0]))
    return sizes


def make(name: str, **parameters: Any) -> Rule:
    return make_rule(name, parameters, FLEET)


class TestTargetTracking:
    def test_scales_out_after_three_steps_above_the_target(self) -> None:
        # 900 / (0.6 x 100) = 15
        assert run(make("target_tracking"), [(900, 10, 0)] * 3) == [10, 10, 15]

    def test_a_step_at_the_target_ends_the_breach(self) -> None:
        assert run(make("target_tracking"), [(900, 10, 0), (900, 10, 0), (600, 10, 0), (900, 10, 0)]) == [10] * 4

    def test_orders_once_while_machines_warm_up(self) -> None:
        steps = [(900, 10, 0)] * 3 + [(900, 10, 5), (1000, 10, 5)]
        # the last: 1000 / 60 = 16.7 -> 17 in all, of which 15 are there or on order
        assert run(make("target_tracking"), steps) == [10, 10, 15, 15, 17]

    def test_scales_in_after_fifteen_steps_below_nine_tenths_of_the_target(self) -> None:
        # 0.9 x 0.6 x 10 machines = 540; 530 / 60 = 8.8 -> 9
        assert run(make("target_tracking"), [(530, 10, 0)] * 16) == [10] * 14 + [9, 9]

    def test_keeps_between_the_alarms(self) -> None:
        assert run(make("target_tracking"), [(540, 10, 0), (600, 10, 0)] * 20) == [10] * 40

    def test_scale_in_waits_for_a_scale_out_in_progress(self) -> None:
        assert run(make("target_tracking"), [(300, 10, 2)] * 20 + [(300, 12, 0)]) == [12] * 20 + [5]

    def test_a_step_within_the_band_ends_the_low_breach(self) -> None:
        assert run(make("target_tracking"), [(530, 10, 0)] * 14 + [(540, 10, 0)] + [(530, 10, 0)] * 14) == [10] * 29

    def test_an_alarm_acts_at_every_step_while_it_stays_raised(self) -> None:
        # 900 / 60 = 15, then 1150 / 60 = 19.2 -> 20; 420 / 60 = 7, then 300 / 60 = 5
        assert run(make("target_tracking"), [(900, 10, 0)] * 3 + [(1150, 15, 0)]) == [10, 10, 15, 20]
        assert run(make("target_tracking"), [(420, 10, 0)] * 15 + [(300, 7, 0)]) == [10] * 14 + [7, 5]

    def test_adds_at_least_and_removes_at_most_what_the_target_asks_for(self) -> None:
        # The guide's example: 1.5 machines more are two, 1.5 machines fewer are one.
        assert run(make("target_tracking", target=0.5), [(575, 10, 0)] * 3)[-1] == 12
        assert run(make("target_tracking", target=0.5), [(425, 10, 0)] * 15)[-1] == 9

    def test_periods_and_the_low_alarm_are_parameters(self) -> None:
        rule = make("target_tracking", out_periods=2, in_periods=4, low_ratio=0.7)
        # 0.7 x 0.6 x 10 machines = 420
        assert run(rule, [(900, 10, 0)] * 2) == [10, 15]
        assert run(rule, [(430, 10, 0)] * 8 + [(410, 10, 0)] * 4) == [10] * 11 + [7]

    def test_a_fleet_without_machines_orders_for_its_load(self) -> None:
        assert run(make("target_tracking", out_periods=1), [(150, 0, 0)]) == [3]


class TestStepScaling:
    @pytest.mark.parametrize(
        ("load", "size"),
        [(1399, 20), (1400, 22), (1599, 22), (1600, 24), (1899, 24), (1900, 26), (4000, 26)],
    )
    def test_a_larger_breach_takes_a_larger_step_out(self, load: float, size: int) -> None:
        assert run(make("step_scaling"), [(load, 20, 0)] * 3) == [20, 20, size]

    @pytest.mark.parametrize(("load", "size"), [(1001, 20), (1000, 18), (801, 18), (800, 16), (0, 16)])
    def test_a_larger_breach_takes_a_larger_step_in(self, load: float, size: int) -> None:
        assert run(make("step_scaling"), [(load, 20, 0)] * 15) == [20] * 14 + [size]

    def test_while_machines_warm_up_a_larger_breach_adds_only_the_difference(self) -> None:
        # As in the AWS guide: +10 % of 10 = 1; the same band again adds none; +30 % of 10 = 3, one of them on order.
        steps = [(750, 10, 0), (760, 10, 1), (960, 10, 1), (960, 10, 3)]
        assert run(make("step_scaling", out_periods=1), steps) == [11, 11, 13, 13]

    def test_steps_of_the_guide_one_after_the_other(self) -> None:
        # 10 % of 10 is 1; 30 % of 11 is 3.3, so 3; 10 % of 14 is 1.4, so 1; 20 % of 13 is 2.6, so 2
        rule = make("step_scaling", high=0.45, low=0.4, out_periods=1, in_periods=1)
        assert run(rule, [(500, 10, 0), (770, 11, 0), (560, 14, 0), (390, 13, 0)]) == [11, 14, 13, 11]

    def test_an_alarm_acts_at_every_step_while_it_stays_raised(self) -> None:
        # +10 % of 20, of 22 (2.2) and of 24 (2.4); -10 % of 20 and of 18 (1.8)
        steps = [(1400, 20, 0)] * 3 + [(1600, 22, 0), (1700, 24, 0)]
        assert run(make("step_scaling"), steps) == [20, 20, 22, 24, 26]
        assert run(make("step_scaling"), [(1000, 20, 0)] * 15 + [(900, 18, 0)])[-2:] == [18, 17]

    def test_a_step_between_the_thresholds_ends_a_breach(self) -> None:
        assert run(make("step_scaling"), [(1400, 20, 0), (1400, 20, 0), (1399, 20, 0), (1400, 20, 0)]) == [20] * 4
        assert run(make("step_scaling"), [(1000, 20, 0)] * 14 + [(1001, 20, 0), (1000, 20, 0)]) == [20] * 16

    def test_percentages_are_rounded_down_but_are_at_least_one(self) -> None:
        assert run(make("step_scaling", out_periods=1), [(210, 3, 0), (1330, 19, 0)]) == [4, 20]

    def test_scale_in_waits_while_machines_warm_up(self) -> None:
        assert run(make("step_scaling", in_periods=2), [(100, 10, 1)] * 4 + [(100, 11, 0)]) == [11] * 4 + [9]

    def test_the_low_threshold_must_be_below_the_high_one(self) -> None:
        with pytest.raises(ValueError, match=r"StepScalingParameters.low: 0.7 is not below high \(0.7\)"):
            make("step_scaling", low=0.7)


class TestKubernetesHpa:
    def test_scales_up_at_once(self) -> None:
        # 1000 / 70 = 14.3 -> 15
        assert run(make("kubernetes_hpa"), [(1000, 10, 0)]) == [15]

    def test_twice_the_target_doubles_and_half_of_it_halves(self) -> None:
        # The documentation's example: 200m against 100m doubles the pods, 50m halves them.
        assert run(make("kubernetes_hpa", target=0.5, stabilization=1), [(1000, 10, 0), (250, 10, 0)]) == [20, 5]

    def test_a_tolerance_of_zero_acts_on_any_difference(self) -> None:
        rule = make("kubernetes_hpa", tolerance=0, stabilization=1)
        assert run(rule, [(700, 10, 0), (701, 10, 0), (630, 10, 0)]) == [10, 11, 9]

    @pytest.mark.parametrize("load", [630, 700, 770])
    def test_keeps_within_the_tolerance(self, load: float) -> None:
        assert run(make("kubernetes_hpa", stabilization=1), [(load, 10, 0)]) == [10]

    @pytest.mark.parametrize(("load", "size"), [(629, 9), (771, 12)])
    def test_acts_beyond_the_tolerance(self, load: float, size: int) -> None:
        assert run(make("kubernetes_hpa", stabilization=1), [(load, 10, 0)]) == [size]

    def test_goes_down_to_the_highest_recommendation_of_the_window(self) -> None:
        steps = [(700, 10, 0), (350, 10, 0), (490, 10, 0), (350, 10, 0), (350, 10, 0), (350, 10, 0), (350, 10, 0)]
        # Recommended: 10 5 7 5 5 5 5; the window of 5 begins full of the size at hand.
        assert run(make("kubernetes_hpa"), steps) == [10, 10, 10, 10, 10, 7, 7]

    def test_a_high_recommendation_in_the_window_never_scales_up(self) -> None:
        steps = [(1400, 10, 0), (350, 10, 0)]
        assert run(make("kubernetes_hpa", stabilization=2), steps) == [20, 10]

    def test_pods_not_yet_ready_count_as_idle_when_scaling_up(self) -> None:
        # 900 load: ratio 1.29 over 10 ready; over all 12: 1.07, within the tolerance. 1000: 1.19 over 12 -> 15
        # 900 over all 14: 0.92 would reverse the direction.
        steps = [(900, 10, 2), (1000, 10, 2), (900, 10, 4), (900, 10, 6)]
        assert run(make("kubernetes_hpa"), steps) == [12, 15, 14, 16]

    def test_pods_not_yet_ready_do_not_count_when_scaling_down(self) -> None:
        # replica_calculator.go: ceil(0.5 x 10 ready), whatever is on order
        assert run(make("kubernetes_hpa", stabilization=1), [(350, 10, 2)]) == [5]

    def test_a_low_recommendation_in_the_window_does_not_delay_scaling_up(self) -> None:
        assert run(make("kubernetes_hpa"), [(350, 10, 0)] * 3 + [(1400, 10, 0)]) == [10, 10, 10, 20]

    def test_scale_up_is_limited_to_four_pods_or_doubling_in_fifteen_seconds(self) -> None:
        rule = make_rule("kubernetes_hpa", {}, FleetSpec(throughput=100.0, max_machines=1000, step_seconds=15))
        assert run(rule, [(50_000, 2, 0), (50_000, 10, 0)]) == [6, 20]
        rule = make_rule("kubernetes_hpa", {}, FleetSpec(throughput=100.0, max_machines=1000))
        assert run(rule, [(50_000, 2, 0), (50_000, 10, 0)]) == [48, 160]  # four times: 2 6 12 24 48; 10 20 40 80 160


class TestPredictive:
    def test_is_ready_for_the_forecast_hour(self) -> None:
        # mean of 1200 and 1500 is 1350; / 60 = 22.5 -> 23
        assert run(make("predictive"), [(600, 10, 0)], {"day1_hour": 1200, "day4_hour": 1500}) == [23]

    def test_adds_the_buffer(self) -> None:
        assert run(make("predictive", buffer=0.2), [(600, 10, 0)], {"day1_hour": 1200}) == [24]

    def test_does_not_scale_in_by_itself(self) -> None:
        assert run(make("predictive"), [(600, 10, 0)] * 20, {"day1_hour": 60}) == [10] * 20

    def test_scales_in_as_target_tracking_does_but_not_below_the_forecast(self) -> None:
        assert run(make("predictive"), [(300, 10, 0)] * 15, {"day1_hour": 450}) == [10] * 14 + [8]

    def test_scales_out_beyond_the_forecast_as_target_tracking_does(self) -> None:
        assert run(make("predictive"), [(900, 10, 0)] * 3, {"day1_hour": 720}) == [12, 12, 15]

    def test_looks_at_as_many_days_as_it_is_told(self) -> None:
        # mean of 1200 and 1500; the third day is not looked at
        seasonal = {"day1_hour": 1200, "day2_hour": 1500, "day3_hour": 6000}
        assert run(make("predictive", days=2), [(600, 10, 0)], seasonal) == [23]

    def test_is_target_tracking_when_nothing_is_known(self) -> None:
        assert run(make("predictive"), [(900, 10, 0)] * 3) == [10, 10, 15]


class TestHybrid:
    def test_takes_the_larger_of_now_and_the_usual(self) -> None:
        rule = make("hybrid", hold=1)
        assert run(rule, [(700, 9, 0)], {"day1_max": 1400, "day2_max": 1400}) == [20]
        assert run(rule, [(700, 9, 0)], {"day1_max": 350, "day2_max": 350}) == [10]

    def test_takes_the_quantile_of_the_known_days(self) -> None:
        # 0.8 of the way from 1000 to 2000
        assert run(make("hybrid", hold=1), [(0, 9, 0)], {"day2_max": 1000, "day5_max": 2000}) == [26]

    def test_is_reactive_when_nothing_is_known(self) -> None:
        assert run(make("hybrid", hold=1), [(700, 9, 0), (70, 9, 0)]) == [10, 1]

    def test_holds_the_largest_wanted_size(self) -> None:
        steps = [(1400, 9, 0), (70, 9, 0), (700, 9, 0), (70, 9, 0), (70, 9, 0), (70, 9, 0)]
        assert run(make("hybrid", hold=3), steps) == [20, 20, 20, 10, 10, 1]

    @settings(max_examples=50)
    @given(
        days=st.lists(
            st.lists(st.one_of(st.just(np.nan), st.floats(0, 5000)), min_size=3, max_size=3), min_size=1, max_size=9
        ),
        quantile=st.floats(0, 1),
    )
    def test_the_quantile_is_that_of_numpy(self, days: list[list[float]], quantile: float) -> None:
        rule = make("hybrid", hold=1, days=len(days), quantile=quantile)
        seasonal = {name: np.array(values) for name, values in zip(rule.seasonal, days, strict=True)}
        zero = np.zeros(3)
        desired, _ = rule.desired(Fleets(zero, zero, zero, seasonal), rule.initial_state(3))
        values = np.array(days)
        for i in range(3):
            known = values[:, i][~np.isnan(values[:, i])]
            need = np.quantile(known, quantile) / 70 if len(known) else 0.0
            assert np.clip(need, 1, 100) - 1e-3 <= desired[i] <= np.clip(need + 1, 1, 100) + 1e-3


def test_static_stays() -> None:
    assert run(make("static", machines=40), [(9000, 3, 0), (0, 40, 0)]) == [40, 40]


@pytest.mark.parametrize("name", RULES)
def test_a_load_that_needs_a_whole_number_exactly_needs_no_machine_more(name: str) -> None:
    parameters = {"target": 0.6} if name not in ("static", "step_scaling") else {}
    if name in ("target_tracking", "predictive"):
        parameters["out_periods"] = 1
    fleet = FleetSpec(throughput=300.0)
    rule = make_rule(name, parameters, fleet)
    sizes = run(rule, [(3600.0000001, 15, 0)])
    assert sizes == {"static": [40], "step_scaling": [15]}.get(name, [20])


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(sorted(RULES)), seed=st.integers(0, 10_000), n=st.integers(1, 4))
def test_every_rule_is_pure_bounded_and_the_same_for_one_fleet_as_for_many(name: str, seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    fleet = FleetSpec(throughput=100.0, min_machines=3, max_machines=30)
    rule = make_rule(name, {}, fleet)
    state = rule.initial_state(n)
    single = [rule.initial_state(1) for _ in range(n)]
    for _ in range(20):
        seasonal = {key: np.where(rng.random(n) < 0.3, np.nan, rng.gamma(2, 500, n)) for key in rule.seasonal}
        load = rng.gamma(1, 900, n).astype(np.float32)
        active, pending = rng.integers(0, 30, n).astype(np.float32), rng.integers(0, 3, n).astype(np.float32)
        before = copy.deepcopy(dict(state))
        desired, following = rule.desired(Fleets(load, active, pending, seasonal), state)
        for key, value in before.items():
            np.testing.assert_array_equal(state[key], value)
        assert ((desired >= 3) & (desired <= 30) & (desired % 1 == 0)).all()
        for i in range(n):
            one = slice(i, i + 1)
            values = {key: value[one] for key, value in seasonal.items()}
            alone, single[i] = rule.desired(Fleets(load[one], active[one], pending[one], values), single[i])
            assert alone[0] == desired[i]
        assert {key: value.shape for key, value in following.items()} == {
            key: value.shape for key, value in state.items()
        }
        state = following


def any_setting(name: str, rng: np.random.Generator) -> dict[str, Any]:
    """A valid setting of a rule."""
    low = float(rng.uniform(0.1, 0.7))
    alarms = {"out_periods": int(rng.integers(1, 5)), "in_periods": int(rng.integers(1, 8))}
    target = {"target": float(rng.uniform(0.3, 1.0))}
    days, window = int(rng.integers(1, 15)), int(rng.integers(1, 9))
    return {
        "target_tracking": target | alarms | {"low_ratio": float(rng.uniform(0.5, 1.0))},
        "step_scaling": alarms | {"low": low, "high": low + 0.1, "out_percent": float(rng.uniform(1, 60))},
        "kubernetes_hpa": target | {"tolerance": float(rng.uniform(0, 0.3)), "stabilization": window},
        "predictive": target | alarms | {"days": days, "buffer": float(rng.uniform(0, 0.5))},
        "hybrid": target | {"days": days, "quantile": float(rng.uniform(0, 1)), "hold": window},
        "static": {"machines": int(rng.integers(0, 60))},
    }[name]


@settings(max_examples=80, deadline=None)
@given(name=st.sampled_from(sorted(RULES)), seed=st.integers(0, 10_000), n=st.integers(1, 6))
def test_fleets_with_settings_of_their_own_fare_as_each_would_alone(name: str, seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    fleet = FleetSpec(throughput=100.0, min_machines=3, max_machines=40)
    chosen = [any_setting(name, rng) for _ in range(n)]
    together, alone = make_rules(name, chosen, fleet), [make_rule(name, setting, fleet) for setting in chosen]
    state, states = together.initial_state(n), [rule.initial_state(1) for rule in alone]
    assert (together.memory, len(together.seasonal)) == (
        max(rule.memory for rule in alone),
        max(len(rule.seasonal) for rule in alone),
    )
    for _ in range(20):
        load = rng.gamma(1, 900, n).astype(np.float32)
        active, pending = rng.integers(0, 30, n).astype(np.float32), rng.integers(0, 3, n).astype(np.float32)
        unknown = rng.choice([0.0, 0.3])
        seasonal = {key: np.where(rng.random(n) < unknown, np.nan, rng.gamma(2, 500, n)) for key in together.seasonal}
        desired, state = together.desired(Fleets(load, active, pending, seasonal), state)
        for i, rule in enumerate(alone):
            one = slice(i, i + 1)
            values = {key: seasonal[key][one] for key in rule.seasonal}
            expected, states[i] = rule.desired(Fleets(load[one], active[one], pending[one], values), states[i])
            assert desired[i] == expected[0]
            for key, value in states[i].items():
                # A shorter window is the newest part of the longest one.
                np.testing.assert_array_equal(state[key][one][..., -value.shape[-1] :], value)


@settings(max_examples=30, deadline=None)
@given(name=st.sampled_from(["predictive", "hybrid"]), seed=st.integers(0, 10_000))
def test_what_a_rule_expects_can_be_computed_ahead_for_many_steps(name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    setting = any_setting(name, rng)
    rule = make_rule(name, setting, FLEET)
    seasonal = {key: np.where(rng.random(10) < 0.2, np.nan, rng.gamma(2, 500, 10)) for key in rule.seasonal}
    ahead = rule.expected(seasonal)
    others = {key: value for key, value in any_setting(name, rng).items() if key not in rule.expected_from}
    np.testing.assert_array_equal(make_rule(name, setting | others, FLEET).expected(seasonal), ahead)
    state = rule.initial_state(1)
    for step in range(10):
        now = {key: value[step : step + 1] for key, value in seasonal.items()}
        load, active, pending = (np.array([value]) for value in (rng.gamma(1, 900), 10.0, 0.0))
        at_once, following = rule.desired(Fleets(load, active, pending, now), state)
        computed_ahead, state = rule.desired(Fleets(load, active, pending), state, ahead[step : step + 1])
        assert at_once[0] == computed_ahead[0]
        np.testing.assert_equal(dict(state), dict(following))


@settings(max_examples=30, deadline=None)
@given(name=st.sampled_from(sorted(RULES)), seed=st.integers(0, 10_000))
def test_replaying_as_many_steps_as_a_rule_remembers_restores_its_decision(name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rule = make_rule(name, {}, FLEET)
    steps = [(float(rng.gamma(2, 300)), int(rng.integers(8, 12)), 0) for _ in range(40)]
    assert run(rule, steps)[-1] == run(rule, steps[-rule.memory - 1 :])[-1]


@settings(max_examples=80, deadline=None)
@given(name=st.sampled_from(sorted(RULES)), seed=st.integers(0, 10_000), steps=st.integers(0, 30))
def test_the_state_after_some_steps_is_that_of_taking_them_one_by_one(name: str, seed: int, steps: int) -> None:
    rng = np.random.default_rng(seed)
    rule = make_rule(name, any_setting(name, rng), FLEET)
    path = Fleets(
        load=rng.gamma(1, 900, steps),
        active=rng.integers(0, 30, steps).astype(np.float64),
        pending=rng.integers(0, 3, steps).astype(np.float64),
        seasonal={key: np.where(rng.random(steps) < 0.3, np.nan, rng.gamma(2, 500, steps)) for key in rule.seasonal},
    )
    state: Any = rule.initial_state(1)
    for step in range(steps):
        now = slice(step, step + 1)
        seasonal = {key: values[now] for key, values in path.seasonal.items()}
        _, state = rule.desired(Fleets(path.load[now], path.active[now], path.pending[now], seasonal), state)

    np.testing.assert_equal(rule.state_after(path), dict(state))


def test_an_unknown_rule_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown rule 'hybird', known: target_tracking, .*hybrid"):
        make_rule("hybird", {}, FLEET)


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("hybrid", {"targte": 0.5}, "HybridParameters: unknown key 'targte', known: target, days"),
        ("hybrid", {"fleet": 1}, "HybridParameters: unknown key 'fleet'"),
        ("hybrid", {"target": 1.5}, "HybridParameters.target: 1.5 is out of range, allowed 0.05 to 1.0"),
        ("static", {"machines": 4.5}, "StaticParameters.machines: expected int"),
        ("predictive", {"days": 15}, "PredictiveParameters.days: 15 is out of range"),
    ],
)
def test_a_wrong_parameter_is_refused_by_name(name: str, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_rule(name, parameters, FLEET)


def test_no_setting_is_refused() -> None:
    with pytest.raises(ValueError, match="rule 'hybrid': no setting"):
        make_rules("hybrid", [], FLEET)
