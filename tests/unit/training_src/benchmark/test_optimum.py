from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy_runtime.rules import RULES, make_rule
from training_src.benchmark import optimum
from training_src.benchmark.optimum import plan, run_optimum, stage_costs
from training_src.benchmark.rollout import RuleController, run
from training_src.envs.economics import settle
from training_src.envs.fleet import FleetBatch
from training_src.envs.load import LoadPath
from training_src.envs.simulation import Simulation
from training_src.errors import UserError
from training_src.problem import CLASSIC, Economics, Problem

Floats = np.ndarray[Any, np.dtype[np.float32]]

ECONOMICS = st.fixed_dictionaries(
    {
        "machine_cost": st.sampled_from([0.0, 0.05, 0.7]),
        "success_value": st.sampled_from([0.0, 0.9, 20.0]),
        "violation_penalty": st.sampled_from([0.0, 0.4, 3.0, 200.0]),
        "failure_threshold": st.sampled_from([0.0, 0.05, 1.0]),
    }
)


@st.composite
def fleets(draw: st.DrawFn, largest: int) -> dict[str, Any]:
    low = draw(st.integers(0, 2))
    high = draw(st.integers(max(1, low), largest))
    return {
        "throughput": 10.0,
        "min_machines": low,
        "max_machines": high,
        "initial_machines": draw(st.integers(low, high)),
        "provisioning_delay": draw(st.integers(0, 4)),
        "billing": draw(st.sampled_from(["request", "activation"])),
        "step_seconds": draw(st.sampled_from([60, 300])),
    }


def costs_of(problem: Problem, load: Floats, changes: Floats) -> np.ndarray[Any, np.dtype[np.float64]]:
    """What the simulator makes of changes of shape ``(T, n)`` on loads of shape ``(T, n)``, or ``(T, 1)`` for all."""
    assert problem.fleet.initial_machines is not None
    fleets = FleetBatch(problem.fleet, changes.shape[1])
    fleets.reset(np.full(changes.shape[1], problem.fleet.initial_machines, np.float32))
    cost = np.zeros(changes.shape[1])
    minutes = problem.fleet.step_seconds / 60.0
    for arriving, change in zip(load, changes, strict=True):
        fleets.advance(change)
        capacity = fleets.active * np.float32(problem.fleet.throughput)
        cost += settle(problem.economics, minutes, arriving, capacity, fleets.billed).cost
    return cost


def all_sequences(choices: list[int], steps: int) -> Floats:
    """Shape ``(steps, len(choices) ** steps)``."""
    return np.array(list(itertools.product(choices, repeat=steps)), np.float32).T


@given(
    changes=st.lists(st.integers(-8, 8), min_size=1, max_size=30),
    initial=st.integers(0, 12),
    delay=st.integers(0, 6),
)
@settings(deadline=None, max_examples=100)
def test_active_machines_are_the_least_total_since_the_delay(changes: list[int], initial: int, delay: int) -> None:
    fleets = FleetBatch(Problem.parse({"fleet": {"provisioning_delay": delay, "min_machines": 0}}).fleet, 1)
    fleets.reset(np.array([initial], np.float32))
    totals = [float(initial)] * delay
    for change in changes:
        fleets.advance(np.array([change], np.float32))
        totals.append(fleets.total.item())
        assert fleets.active.item() == min(totals[-delay - 1 :])


@given(fleet=fleets(largest=4), economics=ECONOMICS, seed=st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=60)
def test_the_optimum_is_the_least_cost_of_all_sequences_in_the_simulator(
    fleet: dict[str, Any], economics: dict[str, Any], seed: int
) -> None:
    problem = Problem.parse({"fleet": fleet, "economics": economics})
    load = np.random.default_rng(seed).uniform(0.0, 45.0, (6, 1)).astype(np.float32)
    initial = np.array([fleet["initial_machines"]], np.float32)
    sizes = range(fleet["min_machines"], fleet["max_machines"] + 1)
    totals = all_sequences(list(sizes), len(load))
    changes = np.diff(totals, axis=0, prepend=initial[0])
    costs = costs_of(problem, load, changes)

    up, down = 1 + seed % 2, 1 + seed // 2 % 2
    within = ((changes <= up) & (changes >= -down)).all(axis=0)
    for step_limits, least in ((None, costs.min()), ((up, down), costs[within].min())):
        found = plan(problem, load, initial, step_limits)
        assert found.cost.item() == pytest.approx(least, rel=1e-6, abs=1e-9)
        made = np.diff(found.machines, axis=0, prepend=initial[:, None])
        assert costs_of(problem, load, made).item() == pytest.approx(least, rel=1e-6, abs=1e-9)
        if step_limits is not None:
            assert (made <= up).all() and (made >= -down).all()


@given(fleet=fleets(largest=8), economics=ECONOMICS, seed=st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=40)
def test_actions_with_holes_cost_no_less_than_the_optimum_under_their_step_limits(
    fleet: dict[str, Any], economics: dict[str, Any], seed: int
) -> None:
    problem = Problem.parse({"fleet": fleet, "economics": economics})
    load = np.random.default_rng(seed).uniform(0.0, 80.0, (6, 1)).astype(np.float32)
    costs = costs_of(problem, load, all_sequences([-3, -1, 0, 3], len(load)))

    found = plan(problem, load, np.array([fleet["initial_machines"]], np.float32), (3, 3))

    assert found.cost.item() <= costs.min() * (1 + 1e-6)


class Walk:
    """Makes random changes."""

    def __init__(self, seed: int, steps: tuple[int, ...]) -> None:
        self.rng = np.random.default_rng(seed)
        self.steps = np.array(steps, np.float32)

    def start(self, simulation: Simulation) -> None:
        """Nothing to forget."""

    def change(self, simulation: Simulation) -> Floats:
        changes: Floats = self.rng.choice(self.steps, simulation.n)
        return changes


@given(
    delay=st.integers(0, 8),
    billing=st.sampled_from(["request", "activation"]),
    initial=st.sampled_from([None, 3, 25]),
    largest=st.sampled_from([25, 60]),
    economics=ECONOMICS,
    steps=st.sampled_from([(-3, -1, 0, 1, 3, 5), (-1, 0, 1), (-20, 0, 4)]),
    seed=st.integers(0, 2**20),
)
@settings(deadline=None, max_examples=12)
def test_no_policy_costs_less(
    delay: int,
    billing: str,
    initial: int | None,
    largest: int,
    economics: dict[str, Any],
    steps: tuple[int, ...],
    seed: int,
) -> None:
    problem = Problem.parse(
        {
            "fleet": {
                "provisioning_delay": delay,
                "billing": billing,
                "initial_machines": initial,
                "min_machines": 2,
                "max_machines": largest,
            },
            "economics": economics,
            "action_steps": steps,
            "episode_steps": 150,
        }
    )
    seeds = [seed, seed + 1]

    best, unlimited = run_optimum(problem, seeds)
    _, limited = run_optimum(problem, seeds, step_limits=(max(steps), -min(steps)))

    np.testing.assert_allclose(total_cost(best), unlimited.cost, rtol=1e-6)
    slack = 1 - 1e-6
    assert (limited.cost >= unlimited.cost * slack).all()
    walk = run(problem, seeds, Walk(seed, steps))
    assert (total_cost(walk) >= limited.cost * slack).all()
    for name in RULES:
        record = run(problem, seeds, RuleController(make_rule(name, {}, problem.fleet.spec())))
        assert (total_cost(record) >= unlimited.cost * slack).all(), name


def total_cost(record: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.asarray(record.cost.sum(axis=0, dtype=np.float64))


@pytest.mark.parametrize("billing", ["request", "activation"])
@pytest.mark.parametrize("step_limits", [None, (5, 3)])
def test_a_plan_replayed_has_the_planned_machines_and_cost(billing: str, step_limits: tuple[int, int] | None) -> None:
    problem = Problem.parse({"fleet": {"billing": billing}, "episode_steps": 1000})

    record, found = run_optimum(problem, range(3), step_limits=step_limits)

    assert found.kind == "exact"
    np.testing.assert_array_equal(record.machines, found.machines)
    np.testing.assert_array_equal(record.active, found.active)
    np.testing.assert_allclose(total_cost(record), found.cost, rtol=1e-6)
    if step_limits is not None:
        assert record.changes.max() <= step_limits[0]
        assert record.changes.min() >= -step_limits[1]
    # An order is never cancelled: a smaller size has nothing pending.
    assert (record.machines == record.active)[record.changes < 0].all()


@pytest.mark.parametrize("billing", ["request", "activation"])
@pytest.mark.parametrize("step_limits", [None, (2, 1)])
@pytest.mark.parametrize("delay", [1, 4])
def test_a_plan_for_a_load_that_jumps_costs_in_the_simulator_what_it_says(
    billing: str, step_limits: tuple[int, int] | None, delay: int
) -> None:
    # Violations that cost little more than machines: much is given up, and falls block rises that would have paid.
    problem = Problem.parse(
        {
            "fleet": {
                "throughput": 10.0,
                "max_machines": 6,
                "initial_machines": 3,
                "provisioning_delay": delay,
                "billing": billing,
            },
            "economics": {"violation_penalty": 0.12, "success_value": 2.0},
        }
    )
    load = np.random.default_rng(0).uniform(0.0, 60.0, (40, 400)).astype(np.float32)
    initial = np.full(400, 3.0, np.float32)

    found = plan(problem, load, initial, step_limits)

    changes = np.diff(found.machines, axis=0, prepend=initial[None])
    np.testing.assert_allclose(costs_of(problem, load, changes), found.cost, rtol=1e-6)


def test_loads_planned_apart_are_planned_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Problem.parse({"fleet": {"billing": "activation"}, "episode_steps": 200})
    _, together = run_optimum(problem, range(4))

    monkeypatch.setattr(optimum, "_PASS_BYTES", 1)
    _, apart = run_optimum(problem, range(4))

    np.testing.assert_array_equal(together.machines, apart.machines)
    np.testing.assert_array_equal(together.cost, apart.cost)


@pytest.mark.parametrize(("noise", "throughput"), [(30.0, 300.0), (10.0, 10.0)])
@pytest.mark.parametrize("threshold", [0.0, 0.05, 1.0])
def test_an_expected_stage_cost_is_the_mean_over_draws(noise: float, throughput: float, threshold: float) -> None:
    economics = Economics(machine_cost=0.3, success_value=40.0, violation_penalty=5.0, failure_threshold=threshold)
    problem = Problem.parse(
        {
            "fleet": {"throughput": throughput, "throughput_noise": noise, "step_seconds": 120},
            "economics": economics.model_dump(),
        }
    )
    load = np.array([0.0, 2.0, 6.0], np.float32) * np.float32(throughput)
    machines = np.array([0.0, 1.0, 5.0, 6.0, 7.0, 20.0], np.float32)
    rng = np.random.default_rng(1)
    draws = np.maximum(rng.normal(throughput, noise, (100_000, 1)), 0.0).astype(np.float32)
    samples = [
        settle(economics, 2.0, np.full_like(draws, arriving), draws * machines, machines + 0 * draws).cost
        for arriving in load
    ]
    mean = np.array([sample.mean(axis=0, dtype=np.float64) for sample in samples])
    error = np.array([sample.std(axis=0, dtype=np.float64) for sample in samples]) / np.sqrt(len(draws))

    found = stage_costs(problem, load, machines)

    assert found.shape == (3, 6)
    assert (np.abs(found - mean) <= 4.5 * error + 1e-4).all()


def test_stage_costs_are_the_simulators_own() -> None:
    problem = Problem()
    rng = np.random.default_rng(0)
    load = rng.uniform(0, 3000, (7, 2)).astype(np.float32)
    machines = np.arange(12, dtype=np.float32)

    found = stage_costs(problem, load, machines)

    for (step, lane), arriving in np.ndenumerate(load):
        capacity = machines * np.float32(300)
        outcome = settle(problem.economics, 1.0, np.full_like(capacity, arriving), capacity, machines)
        np.testing.assert_array_equal(found[step, lane], outcome.cost)


def test_with_random_throughput_the_plan_costs_what_was_expected_on_average() -> None:
    problem = Problem.parse({**CLASSIC, "episode_steps": 600})

    record, found = run_optimum(problem, range(60))

    assert found.kind == "expected"
    surprise = total_cost(record) - found.cost
    assert abs(surprise.mean()) < 3 * surprise.std(ddof=1) / np.sqrt(60)
    # About 1 % of the cost: the check above can fail.
    assert surprise.std(ddof=1) / np.sqrt(60) < 0.015 * found.cost.mean()


def test_with_random_throughput_no_rule_costs_less_on_average() -> None:
    problem = Problem.parse({**CLASSIC, "episode_steps": 600})
    _, found = run_optimum(problem, range(20))

    rules: dict[str, dict[str, float]] = {"static": {"machines": 40}, "hybrid": {"target": 0.6}, "target_tracking": {}}
    for name, parameters in rules.items():
        record = run(problem, range(20), RuleController(make_rule(name, parameters, problem.fleet.spec())))
        assert total_cost(record).mean() > found.cost.mean()


def planned(load: list[float], initial: int, step_limits: tuple[int, int] | None = None, **fleet: Any) -> optimum.Plan:
    problem = Problem.parse({"fleet": {"throughput": 10.0, **fleet}})
    return plan(problem, np.array(load, np.float32)[:, None], np.array([initial], np.float32), step_limits)


def test_without_delay_each_step_has_the_machines_that_it_needs() -> None:
    found = planned([5.0, 35.0, 15.0, 0.0, 60.0], initial=3, provisioning_delay=0)

    assert found.machines[:, 0].tolist() == found.active[:, 0].tolist() == [1, 4, 2, 1, 6]
    assert found.cost.item() == pytest.approx(0.05 * 14)


def test_machines_are_ordered_the_delay_ahead() -> None:
    found = planned([20.0] * 4 + [40.0] * 3, initial=2, provisioning_delay=3)

    assert found.machines[:, 0].tolist() == [2, 4, 4, 4, 4, 4, 4]
    assert found.active[:, 0].tolist() == [2, 2, 2, 2, 4, 4, 4]
    assert found.cost.item() == pytest.approx(0.05 * 26)


def test_a_gap_shorter_than_the_delay_is_kept_and_a_longer_one_is_not() -> None:
    short = planned([30.0] + [10.0] * 3 + [30.0], initial=3, provisioning_delay=4)
    long = planned([30.0] + [10.0] * 6 + [30.0], initial=3, provisioning_delay=4)

    assert short.machines[:, 0].tolist() == [3] * 5
    assert long.machines[:, 0].tolist() == [3, 1, 1, 3, 3, 3, 3, 3]


def test_an_episode_shorter_than_the_delay_never_adds_machines() -> None:
    # Steps of 90 fail in any case; the second machine waits through the first of them for the step of 20.
    found = planned([90.0, 20.0, 90.0, 10.0], initial=2, provisioning_delay=5)

    assert found.machines[:, 0].tolist() == found.active[:, 0].tolist() == [2, 2, 1, 1]


def test_a_fleet_of_one_possible_size_keeps_it() -> None:
    found = planned([20.0, 90.0, 0.0], initial=4, min_machines=4, max_machines=4)

    assert found.machines[:, 0].tolist() == [4, 4, 4]


def test_without_load_the_fleet_shrinks_at_once() -> None:
    found = planned([0.0, 0.0, 0.0], initial=50)

    assert found.machines[:, 0].tolist() == [1, 1, 1]
    assert found.cost.item() == pytest.approx(0.15)


def test_step_limits_spread_a_fall() -> None:
    found = planned([0.0, 0.0, 0.0, 0.0], initial=10, step_limits=(2, 4))

    assert found.machines[:, 0].tolist() == [6, 2, 1, 1]


@pytest.mark.parametrize(("success_value", "machines"), [(6.0, 5), (4.0, 1)])
def test_a_fleet_too_small_for_its_load_keeps_the_machines_that_earn_their_cost(
    success_value: float, machines: int
) -> None:
    # A violation either way: 10 more requests a machine are worth 0.06 or 0.04 dollars, the machine costs 0.05.
    fleet = {"throughput": 10.0, "max_machines": 5, "provisioning_delay": 1}
    problem = Problem.parse({"fleet": fleet, "economics": {"success_value": success_value}})

    found = plan(problem, np.full((3, 1), 500.0, np.float32), np.array([5.0], np.float32))

    assert found.machines[:, 0].tolist() == [machines] * 3
    failed = 500 - 10 * machines
    assert found.cost.item() == pytest.approx(3 * (machines * 0.05 + 200 + failed * success_value / 1000), rel=1e-6)


def test_machines_that_cost_nothing_are_kept() -> None:
    problem = Problem.parse({"economics": {"machine_cost": 0.0}, "fleet": {"throughput": 10.0}})

    found = plan(problem, np.full((4, 1), 20.0, np.float32), np.array([9.0], np.float32))

    assert found.machines[:, 0].tolist() == [9, 9, 9, 9]
    assert found.cost.item() == 0.0


@given(
    values=st.lists(st.integers(-9, 9), min_size=1, max_size=12),
    reach=st.integers(0, 14),
)
@settings(deadline=None, max_examples=100)
def test_sliding_minima_are_those_of_each_window(values: list[int], reach: int) -> None:
    expected = [min(values[max(0, j - reach) : j + 1]) for j in range(len(values))]

    found = optimum._lowest_to_the_left(np.array([values, values], np.float64), reach)

    assert found.tolist() == [expected, expected]


class Peak:
    """A load that stands at one value."""

    def draw(self, rng: np.random.Generator, history: int, steps: int) -> LoadPath:
        return LoadPath(np.full(history + steps, 2990.0, np.float32), 0)


def test_a_load_of_ones_own_takes_the_place_of_the_problems() -> None:
    record, found = run_optimum(Problem(episode_steps=20), [1, 2], profile=Peak())

    assert (record.load == 2990.0).all()
    assert (found.machines == 10.0).all()


@pytest.mark.parametrize(
    ("load", "initial", "step_limits", "message"),
    [
        (np.ones((3, 2)), np.ones(3), None, r"initial \(n,\).*\(3, 2\) and \(3,\)"),
        (np.ones(3), np.ones(1), None, r"load must be \(T, n\)"),
        (np.ones((0, 1)), np.ones(1), None, "not empty"),
        (np.ones((3, 1)), np.array([121.0]), None, "from 1 to 120"),
        (np.ones((3, 1)), np.array([2.5]), None, "whole numbers"),
        (np.ones((3, 1)), np.ones(1), (1, -1), r"zero or more each: \(1, -1\)"),
    ],
)
def test_input_that_does_not_fit_is_refused(
    load: Floats, initial: Floats, step_limits: tuple[int, int] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        plan(Problem(), load.astype(np.float32), initial.astype(np.float32), step_limits)


def test_more_sizes_than_memory_holds_are_refused_with_a_way_out() -> None:
    problem = Problem.parse({"fleet": {"max_machines": 1_000_000, "billing": "activation", "throughput": 1.0}})
    load = np.full((10_000, 1), 900_000.0, np.float32)

    with pytest.raises(UserError, match=r"10000 steps of up to \d+ machines .* GiB .*let one machine .* stand for"):
        plan(problem, load, np.array([5.0], np.float32))
