from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy_runtime.spec import ActionSpec, FeatureSpec, FleetSpec, GuardrailSpec, Spec


@pytest.mark.parametrize(
    "spec",
    [
        FleetSpec(throughput=12.5, min_machines=0, max_machines=7, provisioning_delay=0, step_seconds=300),
        FeatureSpec(lags=(1, 4), windows=(2,), seasonal_days=(), calendar=False),
        ActionSpec(steps=(-1, 0, 1)),
        GuardrailSpec(scale_in_hold=10, stale_after_seconds=60.0),
    ],
)
def test_a_spec_survives_json(spec: Spec) -> None:
    assert type(spec).from_json(json.loads(json.dumps(spec.to_json()))) == spec


@pytest.mark.parametrize(
    ("spec", "data", "message"),
    [
        (FleetSpec, {"throuhgput": 1.0}, "unknown key 'throuhgput'"),
        (FleetSpec, {"throughput": "300"}, "FleetSpec.throughput: expected float, got '300'"),
        (FleetSpec, {"throughput": True}, "FleetSpec.throughput: expected float, got True"),
        (FleetSpec, {"throughput": math.nan}, "not a finite number"),
        (FleetSpec, {"throughput": 10**400}, "FleetSpec.throughput: the number is too large"),
        (FleetSpec, {"max_machines": 10**400}, "FleetSpec.max_machines: 10+ is out of range"),
        (FleetSpec, {"throughput": 0.0}, "FleetSpec.throughput: 0.0 is out of range"),
        (FleetSpec, {"max_machines": 2.5}, "FleetSpec.max_machines: expected int"),
        (FleetSpec, {"min_machines": 9, "max_machines": 8}, "FleetSpec.min_machines: 9 is above max_machines"),
        (FleetSpec, {"step_seconds": 7}, "does not divide a day"),
        (FeatureSpec, {"lags": 3}, "FeatureSpec.lags: expected a list"),
        (FeatureSpec, {"lags": [1, "2"]}, r"FeatureSpec.lags\[1\]: expected int"),
        (FeatureSpec, {"lags": [0]}, "FeatureSpec.lags: 0 is out of range"),
        (FeatureSpec, {"version": 2}, "FeatureSpec.version: 2 is out of range"),
        (FeatureSpec, {"calendar": 1}, "FeatureSpec.calendar: expected bool"),
        (ActionSpec, {"steps": [1, 2]}, "include 0"),
        (ActionSpec, {"steps": [0, 0, 1]}, "distinct"),
        (GuardrailSpec, {"abnormal_drop": 1.5}, "GuardrailSpec.abnormal_drop: 1.5 is out of range"),
        (GuardrailSpec, [], "GuardrailSpec: expected an object, got list"),
    ],
)
def test_a_wrong_value_is_refused_by_name(spec: type[Spec], data: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        spec.from_json(data)


@given(lags=st.lists(st.integers(1, 1440), max_size=4), windows=st.lists(st.integers(2, 1440), max_size=4))
def test_history_covers_the_longest_lag_and_window(lags: list[int], windows: list[int]) -> None:
    assert FeatureSpec(lags=tuple(lags), windows=tuple(windows)).history == max([1, *lags, *windows])


def test_an_integer_is_accepted_where_a_number_is_expected() -> None:
    assert FleetSpec.from_json({"throughput": 300}).throughput == 300.0


def test_fitted_guardrails_leave_room_for_large_fleets_large_actions_and_long_steps() -> None:
    assert GuardrailSpec.fitted(FleetSpec()) == GuardrailSpec()
    large = GuardrailSpec.fitted(FleetSpec(max_machines=1200, step_seconds=300), (-150, 0, 30))
    assert (large.max_step_up, large.max_step_down, large.stale_after_seconds) == (200, 150, 900.0)
