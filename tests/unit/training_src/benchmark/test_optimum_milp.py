"""The dynamic program against a mixed-integer program (HiGHS) that spells out the fleet's rules one by one.

The program knows nothing of windows, locks or activation costs: it has the queue of orders, cancels the youngest order
first and counts violations with binaries.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from scipy.optimize import Bounds, LinearConstraint, milp

from training_src.benchmark.optimum import plan
from training_src.problem import Problem

CASES = 36


@dataclasses.dataclass(frozen=True)
class Case:
    problem: Problem
    load: np.ndarray[Any, np.dtype[np.float32]]
    initial: int

    def planned(self, step_limits: tuple[int, int] | None = None) -> float:
        return plan(self.problem, self.load[:, None], np.array([self.initial], np.float32), step_limits).cost.item()


def random_case(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    low = int(rng.integers(0, 2))
    high = int(rng.integers(max(low, 2), 5))
    fleet = {
        "throughput": 10.0,
        "min_machines": low,
        "max_machines": high,
        "provisioning_delay": seed % 3,
        "billing": ("request", "activation")[seed // 3 % 2],
    }
    economics = {
        "machine_cost": float(rng.choice([0.05, 0.5, 1.0])),
        "success_value": float(rng.choice([0.0, 30.0, 120.0])),
        "violation_penalty": float(rng.choice([0.4, 2.0, 5.0])),
        "failure_threshold": 0.07,
    }
    problem = Problem.parse({"fleet": fleet, "economics": economics})
    # Off the round numbers, where rounding would decide whether a step is a violation.
    load = rng.integers(0, 45, int(rng.integers(5, 9))).astype(np.float32) + np.float32(0.37)
    return Case(problem, load, int(rng.integers(low, high + 1)))


class Program:
    """Minimise a linear cost over variables, all of them whole numbers but those called continuous."""

    def __init__(self) -> None:
        self.cost: list[float] = []
        self.upper: list[float] = []
        self.integral: list[int] = []
        self.rows: list[tuple[dict[int, float], float]] = []

    def variable(self, upper: float, cost: float = 0.0, continuous: bool = False) -> dict[int, float]:
        self.cost.append(cost)
        self.upper.append(upper)
        self.integral.append(0 if continuous else 1)
        return {len(self.cost) - 1: 1.0}

    def at_most_zero(self, *terms: tuple[float, Mapping[int, float]], constant: float = 0.0) -> None:
        """Require ``sum of factor x expression + constant <= 0``; the key -1 of an expression is its constant."""
        row: dict[int, float] = {}
        for factor, expression in terms:
            for index, value in expression.items():
                row[index] = row.get(index, 0.0) + factor * value
        self.rows.append((row, -constant - row.pop(-1, 0.0)))

    def solve(self) -> float:
        matrix = np.zeros((len(self.rows), len(self.cost)))
        for i, (row, _) in enumerate(self.rows):
            for index, value in row.items():
                matrix[i, index] = value
        limits = LinearConstraint(matrix, -np.inf, [bound for _, bound in self.rows])
        result = milp(
            self.cost,
            integrality=self.integral,
            bounds=Bounds(0, self.upper),
            constraints=limits,
            options={"mip_rel_gap": 0.0},
        )
        assert result.success, result.message
        return float(result.fun)


def added(*terms: tuple[float, Mapping[int, float]]) -> dict[int, float]:
    total: dict[int, float] = {}
    for factor, expression in terms:
        for index, value in expression.items():
            total[index] = total.get(index, 0.0) + factor * value
    return total


def least_cost(case: Case, limits: tuple[int, int] | None = None, actions: tuple[int, ...] = ()) -> float:
    """The least cost of any sequence of changes within ``limits``, or from ``actions`` where there are any."""
    fleet, economics = case.problem.fleet, case.problem.economics
    most = fleet.max_machines
    up, down = limits or (most, most)
    program = Program()
    active: dict[int, float] = {-1: float(case.initial)}
    queue: list[dict[int, float]] = [{} for _ in range(fleet.provisioning_delay)]
    for load in case.load.tolist():
        order, taken = program.variable(up), program.variable(most)
        cancelled = [program.variable(most) for _ in queue]
        emptied = [program.variable(1) for _ in queue]
        may_order = program.variable(1)
        released = added((1, taken), *((1, part) for part in cancelled))
        program.at_most_zero((1, order), (-most, may_order))
        program.at_most_zero((1, released), (most, may_order), constant=-most)
        program.at_most_zero((1, released), constant=-down)
        for row, part, empty in zip(queue, cancelled, emptied, strict=True):
            program.at_most_zero((1, part), (-1, row))
            program.at_most_zero((1, row), (-1, part), (most, empty), constant=-most)
        # Youngest (last) first: a row may lose machines once all younger rows are empty, active machines come last.
        for older, younger in itertools.pairwise(emptied):
            program.at_most_zero((1, older), (-1, younger))
        for part, younger in zip([taken, *cancelled[:-1]], emptied, strict=False):
            program.at_most_zero((1, part), (-most, younger))
        program.at_most_zero((1, taken), (-1, active))
        left = [added((1, row), (-1, part)) for row, part in zip(queue, cancelled, strict=True)]
        arrived, *queue = [*left, order]
        active = added((1, active), (-1, taken), (1, arrived))
        total = added((1, active), *((1, row) for row in queue))
        program.at_most_zero((1, total), constant=-most)
        program.at_most_zero((-1, total), constant=fleet.min_machines)
        if actions:
            chosen = [program.variable(1) for _ in actions]
            one = added(*((1, choice) for choice in chosen))
            change = added(*((step, choice) for step, choice in zip(actions, chosen, strict=True)))
            for sign in (1, -1):
                program.at_most_zero((sign, one), constant=-sign)
                program.at_most_zero((sign, change), (-sign, order), (sign, released))
        billed = program.variable(most, economics.machine_cost, continuous=True)
        program.at_most_zero((1, total if fleet.billing == "request" else active), (-1, billed))
        failed = program.variable(load, economics.success_value / 1000.0, continuous=True)
        program.at_most_zero((-1, failed), (-fleet.throughput, active), constant=load)
        violation = program.variable(1, economics.violation_penalty)
        allowed = economics.failure_threshold * load
        program.at_most_zero((-fleet.throughput, active), (-load, violation), constant=load - allowed)
    return program.solve()


@pytest.mark.parametrize("seed", range(CASES))
def test_the_optimum_is_that_of_the_fleets_rules(seed: int) -> None:
    case = random_case(seed)

    assert case.planned() == pytest.approx(least_cost(case), rel=1e-5)


@pytest.mark.parametrize("seed", range(CASES))
def test_the_optimum_under_step_limits_is_that_of_the_fleets_rules(seed: int) -> None:
    case = random_case(1000 + seed)
    limits = ((1, 1), (2, 1), (1, 3), (3, 2))[seed % 4]

    found = case.planned(limits)

    assert found == pytest.approx(least_cost(case, limits), rel=1e-5)
    assert found >= case.planned() * (1 - 1e-9)


def test_the_optimum_under_step_limits_is_a_lower_bound_for_actions_with_holes() -> None:
    cases = [random_case(2000 + seed) for seed in range(24)]

    bounds = np.array([case.planned((3, 3)) for case in cases])
    costs = np.array([least_cost(case, actions=(-3, -1, 0, 3)) for case in cases])

    assert (costs >= bounds * (1 - 1e-5)).all()
    assert (costs > bounds * 1.01).any(), "no case in which the holes cost something"
