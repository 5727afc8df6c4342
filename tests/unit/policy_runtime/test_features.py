from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy_runtime.features import (
    Observer,
    exogenous_features,
    feature_names,
    observe,
    pending_queue,
    seasonal_history,
    seasonal_names,
    seasonal_values,
    trailing,
)
from policy_runtime.spec import FeatureSpec, FleetSpec

# Steps of an hour, so that days of history stay small.
COARSE = FleetSpec(step_seconds=3600, provisioning_delay=2)
COARSE_FEATURES = FeatureSpec(lags=(1, 3), windows=(2, 5), seasonal_days=(1, 2), seasonal_window=1)


@given(
    windows=st.lists(st.integers(1, 40), min_size=1, max_size=5),
    extra=st.integers(0, 30),
    seed=st.integers(0, 1000),
)
def test_trailing_windows_equal_brute_force(windows: list[int], extra: int, seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 1000, (max(windows) + extra, 3)).astype(np.float32)
    for reduce, direct in ((np.maximum, np.max), (np.add, np.sum)):
        for window, result in zip(windows, trailing(reduce, values, windows), strict=True):
            expected = [direct(values[i : i + window], axis=0) for i in range(len(values) - window + 1)]
            np.testing.assert_array_equal(result, expected)


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 4), start=st.integers(0, 20_000))
def test_features_have_the_same_bits_along_a_path_and_for_one_decision(seed: int, n: int, start: int) -> None:
    rng = np.random.default_rng(seed)
    spec, fleet = FeatureSpec(), FleetSpec()
    history = seasonal_history(seasonal_names(spec), spec, fleet)
    load = rng.gamma(2.0, 3000.0, (history + 8, n)).astype(np.float32)
    clock = np.full(n, start, np.int64)
    along = exogenous_features(load, history, 8, spec, fleet, clock)
    assert np.isfinite(along).all()
    step = int(rng.integers(0, 8))
    fleet_index = int(rng.integers(0, n))
    first = history + step
    seasonal = seasonal_values(load[:first], first, 1, seasonal_names(spec), spec, fleet, clock)[:, :, [fleet_index]]
    recent = load[first - spec.history : first, [fleet_index]]
    one = exogenous_features(recent, spec.history, 1, spec, fleet, clock[:1] + first - spec.history, seasonal=seasonal)
    np.testing.assert_array_equal(one[0, :, 0], along[step, :, fleet_index])


feature_specs = st.builds(
    FeatureSpec,
    lags=st.lists(st.integers(1, 70), max_size=6).map(tuple),
    windows=st.lists(st.integers(2, 130), max_size=5).map(tuple),
    seasonal_days=st.lists(st.integers(1, 28), max_size=4).map(tuple),
    calendar=st.booleans(),
)
fleet_specs = st.builds(
    FleetSpec,
    throughput=st.floats(0.01, 1e5),
    provisioning_delay=st.integers(0, 9),
    step_seconds=st.sampled_from([60, 300, 3600]),
)


@settings(max_examples=150, deadline=None)
@given(spec=feature_specs, fleet=fleet_specs, extra=st.integers(0, 40), seed=st.integers(0, 10_000))
def test_an_observer_sees_the_bits_of_the_features_along_a_path(
    spec: FeatureSpec, fleet: FleetSpec, extra: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    n, step = 5, int(rng.integers(0, 3))
    first = spec.history + extra
    load = (rng.gamma(1.0, 10.0 ** rng.integers(0, 7), (first + 2, n)) * (rng.random((first + 2, n)) < 0.9)).astype(
        "f4"
    )
    clock = rng.integers(0, 7 * fleet.steps_per_day, n)
    seasonal = rng.gamma(2.0, 3000.0, (3, len(seasonal_names(spec)), n)).astype(np.float32)
    active = rng.integers(0, 2**20, n).astype(np.float32)
    pending = rng.integers(0, 100, (fleet.provisioning_delay, n)).astype(np.float32)
    now = load[first + step - 1]
    failed = (now * rng.random(n)).astype(np.float32)
    along = exogenous_features(load, first, 3, spec, fleet, clock, seasonal)
    expected = observe(along[step], spec, active, pending, now, failed)

    fleet_index = int(rng.integers(0, n))
    seen = Observer(spec, fleet)(
        load[: first + step, fleet_index].astype(np.float64),
        seasonal[step, :, fleet_index].tolist(),
        int((clock[fleet_index] + first + step) % (7 * fleet.steps_per_day)),
        float(active[fleet_index]),
        pending[:, fleet_index].tolist(),
        float(failed[fleet_index]),
    )

    assert seen.dtype == np.float32
    assert seen.tobytes() == expected[:, fleet_index].tobytes()


def direct_seasonal(load: np.ndarray, t: int, name: str, spec: FeatureSpec, fleet: FleetSpec, clock: int) -> float:
    day, statistic = name.removeprefix("day").split("_")
    arrival = t + fleet.provisioning_delay - int(day) * fleet.steps_per_day
    w = spec.seasonal_window
    if statistic == "level":
        begin, end = t - int(day) * fleet.steps_per_day - 2 * w - 1, t - int(day) * fleet.steps_per_day
    elif statistic == "hour":
        steps = 3600 // fleet.step_seconds
        begin = arrival - (clock + arrival) % steps
        end = begin + steps
    else:
        begin, end = arrival - w, arrival + w + 1
    if begin < 0 or end > len(load):
        return np.nan
    return float(load[begin:end].max() if statistic == "max" else load[begin:end].mean())


@settings(max_examples=40)
@given(seed=st.integers(0, 1000), clock=st.integers(0, 671), length=st.integers(1, 300), delay=st.integers(0, 5))
def test_seasonal_values_equal_a_direct_computation(seed: int, clock: int, length: int, delay: int) -> None:
    fleet = FleetSpec(step_seconds=900, provisioning_delay=delay)  # 96 steps a day, 4 an hour
    spec = FeatureSpec(seasonal_window=3)
    load = np.random.default_rng(seed).integers(0, 10_000, (length, 1)).astype(np.float32)
    names = [f"day{day}_{statistic}" for day in (1, 2) for statistic in ("max", "mean", "level", "hour")]
    count = 3
    first = length - count + 1
    if first < 0:
        return
    result = seasonal_values(load, first, count, names, spec, fleet, np.array([clock]))
    expected = [
        [direct_seasonal(load[:, 0], first + i, name, spec, fleet, clock) for name in names] for i in range(count)
    ]
    np.testing.assert_allclose(result[:, :, 0], expected, rtol=1e-6)


def test_each_fleet_has_its_own_clock_hour() -> None:
    fleet, spec = FleetSpec(step_seconds=1800, provisioning_delay=0), FeatureSpec()
    load = np.arange(96, dtype=np.float32)[:, None].repeat(2, axis=1)
    values = seasonal_values(load, 96, 1, ["day1_hour"], spec, fleet, np.array([0, 1]))
    # Step 96 is step 48 a day earlier: the hour of steps 48, 49 when the path began on the hour, else of 47, 48.
    np.testing.assert_array_equal(values[0, 0], [48.5, 47.5])


def test_a_seasonal_value_is_known_exactly_when_the_history_reaches_back() -> None:
    names = seasonal_names(COARSE_FEATURES)
    history = seasonal_history(names, COARSE_FEATURES, COARSE)
    load = np.ones((history, 1), np.float32)
    known = seasonal_values(load, history, 1, names, COARSE_FEATURES, COARSE, np.array([0]))
    assert np.isfinite(known).all()
    short = load[: 2 * COARSE.steps_per_day]
    unknown = seasonal_values(short, len(short), 1, names, COARSE_FEATURES, COARSE, np.array([0]))
    named = dict(zip(names, unknown[0, :, 0], strict=True))
    assert np.isnan(named["day2_level"]) and np.isfinite(named["day1_max"]) and np.isfinite(named["day2_max"])


@pytest.mark.parametrize("name", ["day0_max", "day1_min", "max", "day100_max", ""])
def test_an_unknown_seasonal_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="unknown seasonal value"):
        seasonal_history([name], FeatureSpec(), FleetSpec())


def test_too_short_a_history_is_refused() -> None:
    with pytest.raises(ValueError, match="60 steps of history are needed"):
        exogenous_features(np.ones((59, 1), np.float32), 59, 1, FeatureSpec(), FleetSpec(), np.array([0]))


def test_features_mean_what_their_names_say() -> None:
    fleet = FleetSpec(throughput=100.0, provisioning_delay=2)
    spec = FeatureSpec(lags=(1, 3), windows=(4,), seasonal_days=(), calendar=True)
    load = np.array([[400.0], [900.0], [200.0], [300.0]], np.float32)
    exogenous = exogenous_features(load, 4, 1, spec, fleet, np.array([6 * 60 - 4]))  # decided Monday 06:00
    pending = np.array([[1.0], [2.0]], np.float32)
    values = observe(exogenous[0], spec, np.array([5.0], np.float32), pending, load[-1], np.array([30.0], np.float32))
    named = dict(zip(feature_names(spec, fleet), values[:, 0].tolist(), strict=True))
    machines = np.log(5 + 3 + 1)
    assert named == pytest.approx(
        {
            "load_lag1": np.log(3 + 1) - machines,
            "load_lag3": np.log(9 + 1) - machines,
            "load_max4": np.log(9 + 1) - machines,
            "load_mean4": np.log(4.5 + 1) - machines,
            "day_sin": 1.0,
            "day_cos": 0.0,
            "week_sin": np.sin(2 * np.pi / 28),
            "week_cos": np.cos(2 * np.pi / 28),
            "log_machines": machines,
            "active_share": 5 / 9,
            "failed_share": 0.1,
            "pending_in_1": 1 / 9,
            "pending_in_2": 2 / 9,
        },
        abs=1e-6,
    )


@settings(max_examples=200)
@given(
    delay=st.integers(0, 6),
    changes=st.lists(st.integers(-6, 6), min_size=7, max_size=40),
)
def test_the_pending_queue_is_that_of_a_simulated_fleet(delay: int, changes: list[int]) -> None:
    active, queue = 20, [0] * delay
    sizes = [active]
    for change in changes:
        change = max(change, -(active + sum(queue)))
        orders = [*queue, max(change, 0)]  # the newest last
        remove = max(-change, 0)
        for slot in reversed(range(len(orders))):
            cancelled = min(orders[slot], remove)
            orders[slot] -= cancelled
            remove -= cancelled
        active += orders[0] - remove
        queue = orders[1:]
        sizes.append(active + sum(queue))
    assert pending_queue(sizes, delay) == queue
