from __future__ import annotations

import dataclasses
import itertools
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy_runtime.rules import RULES, make_rule
from policy_runtime.spec import FleetSpec
from training_src.benchmark.rollout import RuleController, run
from training_src.benchmark.tuning import GRIDS, costs_per_day, grid, grid_values, tune
from training_src.envs.load import TraceProfile
from training_src.envs.trace import read_trace
from training_src.problem import Economics, Fleet, Problem, TraceLoad

FLEET = FleetSpec()
NOISY = Problem(
    fleet=Fleet(throughput_noise=30.0, billing="activation", provisioning_delay=3), episode_steps=400, seasonal_window=2
)


@pytest.mark.parametrize("rule", RULES)
def test_a_grid_holds_a_hundred_valid_configurations_or_more_and_each_once(rule: str) -> None:
    configurations = grid(rule, FLEET)
    assert len(configurations) >= 100
    assert len({tuple(one.items()) for one in configurations}) == len(configurations)
    for one in configurations:
        make_rule(rule, one, FLEET)


@pytest.mark.parametrize("rule", GRIDS)
def test_a_grid_holds_the_published_defaults(rule: str) -> None:
    defaults = dataclasses.asdict(RULES[rule].parameters_type())
    assert {name: defaults[name] for name in GRIDS[rule]} in grid(rule, FLEET)


def test_the_alarms_of_step_scaling_are_kept_apart() -> None:
    pairs = {(one["high"], one["low"]) for one in grid("step_scaling", FLEET)}
    assert (0.7, 0.6) in pairs
    assert not any(low > high - 0.09 for high, low in pairs)


@given(low=st.integers(0, 1000), more=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_a_static_fleet_tries_sizes_over_the_whole_range(low: int, more: int) -> None:
    fleet = FleetSpec(min_machines=low, max_machines=max(1, low + more))
    sizes = grid_values("static", fleet)["machines"]
    assert (sizes[0], sizes[-1]) == (fleet.min_machines, fleet.max_machines)
    assert len(sizes) >= min(100, fleet.max_machines - fleet.min_machines + 1)
    assert all(isinstance(size, int) and size < following for size, following in itertools.pairwise(sizes))


@pytest.mark.parametrize("problem", [Problem(episode_steps=400), NOISY], ids=["default", "noisy"])
@pytest.mark.parametrize("rule", RULES)
def test_costs_are_those_of_a_rollout_of_each_configuration(rule: str, problem: Problem) -> None:
    seeds = range(5, 8)
    chosen = grid(rule, problem.fleet.spec())[::37]
    costs = costs_per_day(problem, seeds, rule, chosen)
    for setting, cost in zip(chosen, costs, strict=True):
        record = run(problem, seeds, RuleController(make_rule(rule, setting, problem.fleet.spec())))
        days = problem.episode_steps / 1440
        assert cost == pytest.approx(record.cost.sum(axis=0, dtype=np.float64).mean() / days, rel=1e-12)


def test_tunes_every_rule_on_the_tuning_days_of_a_trace(tmp_path: Path) -> None:
    path = tmp_path / "load.csv"
    start = datetime(2024, 1, 1, tzinfo=UTC)
    hours = np.arange(24 * 4)
    loads = 6000 + 3000 * np.sin(2 * np.pi * hours / 24) + np.random.default_rng(1).normal(0, 300, len(hours))
    rows = [
        f"{(start + timedelta(hours=int(hour))).isoformat()},{load}" for hour, load in zip(hours, loads, strict=True)
    ]
    path.write_text("\n".join(["timestamp,value", *rows]) + "\n")
    load = TraceLoad(path=str(path), part="tune")
    fleet = Fleet(step_seconds=3600, provisioning_delay=1)
    steps = TraceProfile(load, read_trace(path, fleet.step_seconds, load.values)).steps
    problem = Problem(load=load, fleet=fleet, episode_steps=steps, seasonal_window=1)
    done: list[tuple[int, int]] = []

    tuned = tune(problem, range(1), lambda *progress: done.append(progress))

    assert done == [(i, 6) for i in range(1, 7)]
    assert [one.rule for one in tuned] == list(RULES)
    for one in tuned:
        configurations = grid(one.rule, problem.fleet.spec())
        costs = costs_per_day(problem, range(1), one.rule, configurations)
        # Few steps make many configurations cost the same: the first in the grid's order is chosen.
        assert one.parameters == configurations[costs.tolist().index(costs.min())]
        assert one.cost_per_day == costs.min()
        assert one.configurations == len(configurations)
        assert one.grid == grid_values(one.rule, problem.fleet.spec())


def test_a_rule_is_tuned_to_what_costs_more() -> None:
    cheap = Problem(episode_steps=300, economics=Economics(violation_penalty=0.0))
    dear = Problem(episode_steps=300, economics=Economics(violation_penalty=10_000.0))
    sizes = grid("static", FLEET)
    best = [sizes[int(costs_per_day(one, range(2), "static", sizes).argmin())]["machines"] for one in (cheap, dear)]
    assert best[0] < best[1]
