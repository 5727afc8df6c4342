"""The clairvoyant optimum: the least cost at which a fleet could have met a load that is known in advance.

With ``x[t]`` the size (active + pending), ``a[t]`` the active machines, ``d`` the provisioning delay and ``x`` before
the start the initial size, the dynamics of ``envs.fleet`` are

    a[t] = min(x[t-d], ..., x[t])

so a policy shows in its active path alone: it rises no earlier than step ``d``, and for ``d`` steps after a fall it
does not rise (a fall has cancelled all that was pending). Conversely ``x[t] = max(a[t], ..., a[t+d])`` reaches any such
path, with nothing ordered in vain; no change of ``x`` is larger than the largest change of ``a``, so this holds under
step limits too. A machine that becomes active has been paid for ``d`` steps before where billing is from request.
This gives a dynamic program over the active machines ``a`` and the steps ``k = 0..d`` for which a fall still blocks a
rise. With ``S[t](a)`` the cost of step ``t``, ``c`` the price of a machine and step, and ``W = S[t] + V[t+1]``,

    V[t][k](a) = min of  W[max(k-1, 0)](a)                   keep
                         W[d](a')            for a' < a      fall
                         W[0](a') + r (a'-a) for a' > a      rise, where k = 0 and t >= d

with ``r = c d`` where billing is from request, else 0. Both minima over ``a'`` are running minima, or sliding-window
minima under step limits: O(T d M) for T steps and M sizes. Where billing is from request the block after a fall need
not be kept (``k = 0`` alone, O(T M)): for any path ``a``, ``x`` as above has ``sum x <= sum a + d x (sum of rises)``,
and the machines that it activates, ``min(x[t-d..t]) >= a[t]``, fail no more requests.

What the figure is:

- Sizes that may change by any number: exact, for both ways of billing; no policy costs less.
- Step limits, every whole change between -down and +up allowed: exact likewise. For actions with holes between them,
  such as {-3, -1, 0, 1, 3, 5}, it is a lower bound: +2 would take +3 and -1, and the latter cancels an order.
- Random throughput: the stage cost is the expected one (in closed form), and the optimum that of a policy which knows
  the load and not the draws. Draws do not change the fleet, so no such policy costs less on average; one may cost less
  on given draws.

Tables are kept for one block of about sqrt(T) steps and at the blocks' ends, and computed twice.

Sources: M. Lin, A. Wierman, L. Andrew, E. Thereska, "Dynamic right-sizing for power-proportional data centers", IEEE
INFOCOM 2011 (the problem with switching costs and its backward recursion; delay, lock and violations are added here);
``scipy.ndimage.minimum_filter1d`` (sliding minima in linear time by the MINLIST algorithm).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.ndimage import minimum_filter1d
from scipy.special import ndtr

from training_src.benchmark.rollout import Record, run
from training_src.envs.economics import settle
from training_src.envs.load import LoadProfile
from training_src.envs.simulation import Simulation
from training_src.errors import UserError
from training_src.problem import Problem

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.intp]

_PASS_BYTES = 2**28  # tables of the loads that are solved together
_MOST_BYTES = 2**30  # tables of one load


@dataclasses.dataclass(frozen=True)
class Plan:
    """The optimum of ``n`` fleets over ``T`` steps.

    Attributes:
        machines: shape ``(T, n)``, the size (active + pending) to have from each step on.
        active: shape ``(T, n)``, machines that then serve.
        cost: shape ``(n,)``, dollars of the whole episode.
        kind: exact: the cost on this load; expected: its mean over the machines' random throughput.
    """

    machines: Floats
    active: Floats
    cost: Doubles
    kind: Literal["exact", "expected"]


def plan(problem: Problem, load: Floats, initial: Floats, step_limits: tuple[int, int] | None = None) -> Plan:
    """Find the sizes that cost least.

    Args:
        problem: fleet and economics; its load and actions are not used.
        load: shape ``(T, n)``, requests that arrive in each step.
        initial: shape ``(n,)``, machines active at the start, with none pending.
        step_limits: machines that one step may add and remove at most, (up, down), both zero or more; any when absent.

    Raises:
        ValueError: shapes do not fit, a fleet starts outside its limits, or a step limit is negative.
        UserError: there are too many sizes for the machine's memory.
    """
    fleet = problem.fleet
    if load.ndim != 2 or not load.size or initial.shape != load.shape[1:]:
        raise ValueError(f"load must be (T, n) and initial (n,), not empty; they are {load.shape} and {initial.shape}")
    if not ((initial >= fleet.min_machines) & (initial <= fleet.max_machines) & (initial % 1 == 0)).all():
        raise ValueError(f"initial must be whole numbers from {fleet.min_machines} to {fleet.max_machines}: {initial}")
    if step_limits is not None and min(step_limits) < 0:
        raise ValueError(f"step_limits must be (up, down), zero or more each: {step_limits}")
    sizes = _sizes(problem, float(load.max()), int(initial.max()))
    lane_bytes = _locks(problem) * len(sizes) * 8 * 2 * math.isqrt(len(load))
    if lane_bytes > _MOST_BYTES:
        raise UserError(
            f"the optimum over {len(load)} steps of up to {int(sizes[-1])} machines ordered {fleet.provisioning_delay} "
            f"steps ahead needs {lane_bytes / 2**30:.1f} GiB for each load, the limit is {_MOST_BYTES // 2**30} GiB: "
            "evaluate fewer steps, or let one machine of the problem stand for several (fleet.throughput, "
            "fleet.max_machines, economics.machine_cost)"
        )
    lanes = max(1, _PASS_BYTES // lane_bytes)
    parts = []
    for first in range(0, load.shape[1], lanes):
        part = slice(first, first + lanes)
        parts.append(_Program(problem, load[:, part], sizes, step_limits).solve(initial[part]))
    actives, costs = zip(*parts, strict=True)
    machines, active = _follow(np.concatenate(actives, axis=1), initial, fleet.provisioning_delay)
    return Plan(machines, active, np.concatenate(costs), "expected" if fleet.throughput_noise else "exact")


def stage_costs(problem: Problem, load: Floats, machines: Floats) -> Doubles:
    """What a step costs with each number of active machines and none pending, shape ``(*load.shape, M)``, dollars.

    With random throughput ``max(N(mu, sd), 0)`` it is the expected cost.

    Args:
        problem: fleet and economics.
        load: requests that arrive in a step.
        machines: shape ``(M,)``, zero or more.
    """
    if problem.fleet.throughput_noise:
        return _expected_stage_costs(problem, load[..., None].astype(np.float64), machines.astype(np.float64))
    billed = np.broadcast_to(machines, (*load.shape, len(machines)))
    capacity = machines * np.float32(problem.fleet.throughput)
    minutes = problem.fleet.step_seconds / 60.0
    return settle(problem.economics, minutes, load[..., None], capacity, billed).cost.astype(np.float64)


def _expected_stage_costs(problem: Problem, load: Doubles, machines: Doubles) -> Doubles:
    """The mean of ``settle``'s cost over the throughput ``max(y, 0)``, ``y ~ N(mean, sd)``, for all ``machines``.

    Violations: P(machines max(y, 0) < (1 - threshold) load). Failed requests: E max(load - machines max(y, 0), 0)
    = load P(y < 0) + integral of (load - machines y) dN(y) over 0 < y < load / machines.
    """
    fleet, economics = problem.fleet, problem.economics
    minutes = fleet.step_seconds / 60.0
    mean, sd = fleet.throughput, fleet.throughput_noise
    share = np.divide(1.0, machines, out=np.full(len(machines), np.inf), where=machines > 0)

    def score(needed: Doubles) -> Doubles:
        # Where nothing is needed no draw is too low.
        wanted = np.full((*needed.shape[:-1], len(machines)), -np.inf)
        np.multiply(needed, share, out=wanted, where=needed > 0)
        return np.asarray((wanted - mean) / sd)

    failing, zero = score(load), np.array(-mean / sd)
    below_zero = ndtr(zero)
    failed = (load - machines * mean) * (ndtr(failing) - below_zero)
    failed += machines * sd * (_density(failing) - _density(zero))
    failed += load * below_zero
    failed = np.where(load > 0, np.maximum(failed, 0.0), 0.0)
    violation = ndtr(score((1.0 - economics.failure_threshold) * load))
    cost: Doubles = violation * (economics.violation_penalty * minutes)
    cost += failed * (economics.success_value / 1000.0)
    cost += machines * float(np.float32(economics.machine_cost * minutes))
    return cost


def _density(score: Doubles) -> Doubles:
    """The standard normal density."""
    return np.asarray(np.exp(-0.5 * score * score) / math.sqrt(2.0 * math.pi))


def _sizes(problem: Problem, peak: float, initial: int) -> Floats:
    """The numbers of machines that an optimum may have active.

    Beyond the smallest number with which failures cost no more than one machine another machine never pays: what it
    saves is at most that, at the peak and, as failures cost less there, at any lower load.
    """
    fleet = problem.fleet
    sizes = np.arange(fleet.min_machines, fleet.max_machines + 1, dtype=np.float32)
    machine_cost = np.float32(problem.economics.machine_cost * fleet.step_seconds / 60.0)
    failures = stage_costs(problem, np.array(peak, np.float32), sizes) - sizes * machine_cost
    enough = np.flatnonzero(failures <= machine_cost)
    largest = fleet.min_machines + int(enough[0]) if len(enough) else fleet.max_machines
    return sizes[: max(largest, initial) + 1 - fleet.min_machines]


def _locks(problem: Problem) -> int:
    """How many tables there are: one for each number of steps for which a fall may still block a rise."""
    return 1 if problem.fleet.billing == "request" else problem.fleet.provisioning_delay + 1


class _Program:
    """The dynamic program of ``n`` loads; tables have the shape ``(locks, n, sizes)``."""

    def __init__(self, problem: Problem, load: Floats, sizes: Floats, step_limits: tuple[int, int] | None) -> None:
        self.problem = problem
        self.load = load
        self.sizes = sizes
        self.up, self.down = step_limits or (len(sizes), len(sizes))
        self.delay = problem.fleet.provisioning_delay
        machine_cost = np.float32(problem.economics.machine_cost * problem.fleet.step_seconds / 60.0)
        self.rise_cost = float(machine_cost) * (self.delay if problem.fleet.billing == "request" else 0)
        self.block_steps = math.isqrt(len(load))

    def solve(self, initial: Floats) -> tuple[Floats, Doubles]:
        """The active machines, shape ``(T, n)``, and the least costs, shape ``(n,)``."""
        steps, n = self.load.shape
        lanes = np.arange(n)
        at = (initial - self.sizes[0]).astype(np.intp)
        lock = np.zeros(n, np.intp)
        starts = range(0, steps, self.block_steps)
        value = np.zeros((_locks(self.problem), n, len(self.sizes)))
        after: dict[int, Doubles] = {}
        for first in reversed(starts):
            after[first] = value
            value = self._before(first, self._block(first, value)[0])
        cost = value[0, lanes, at]
        path = np.empty((steps, n), np.intp)
        for first in starts:
            for step, table in enumerate(self._block(first, after.pop(first)), first):
                at, lock = self._choose(step, table, at, lock)
                path[step] = at
        return self.sizes[path], cost

    def _block(self, first: int, value: Doubles) -> Doubles:
        """``W`` of each step of a block, given the costs to go after it."""
        stop = min(first + self.block_steps, len(self.load))
        stages = stage_costs(self.problem, self.load[first:stop], self.sizes)
        tables = np.empty((stop - first, *value.shape))
        for step in reversed(range(first, stop)):
            table = np.add(stages[step - first], value, out=tables[step - first])
            if step > first:
                value = self._before(step, table)
        return tables

    def _before(self, step: int, table: Doubles) -> Doubles:
        """``V``, the costs to go before a step, from its ``W``."""
        value = np.empty_like(table)
        # A fall by 0 machines is among these: a lock that nothing asked for, which never pays.
        fall = _lowest_to_the_left(table[-1], self.down)
        np.minimum(table[:-1], fall, out=value[1:])
        np.minimum(table[0], fall, out=value[0])
        if step >= self.delay:
            paid = np.arange(table.shape[-1]) * self.rise_cost
            rise = _lowest_to_the_left((table[0] + paid)[:, ::-1], self.up)[:, ::-1]
            np.minimum(value[0], rise - paid, out=value[0])
        return value

    def _choose(self, step: int, table: Doubles, at: Integers, lock: Integers) -> tuple[Integers, Integers]:
        """The best next sizes (as indices) and locks of fleets that have ``at``; to keep, where that is as good."""
        lanes = np.arange(len(at))
        change = np.arange(table.shape[-1]) - at[:, None]
        free = (lock == 0) & (step >= self.delay)
        cost = np.where(change < 0, table[-1], table[0] + change * self.rise_cost)
        cost[(change < -self.down) | (change > np.where(free, self.up, 0)[:, None])] = np.inf
        unlocked = np.maximum(lock - 1, 0)
        keep = table[unlocked, lanes, at]
        cost[lanes, at] = keep
        best = cost.argmin(axis=1)
        best = np.where(keep <= cost[lanes, best], at, best)
        return best, np.where(best < at, len(table) - 1, unlocked)


def _lowest_to_the_left(values: Doubles, reach: int) -> Doubles:
    """Minima of ``values[:, j - reach .. j]`` for each ``j``."""
    if reach >= values.shape[1] - 1:
        return np.asarray(np.minimum.accumulate(values, axis=1))
    size = reach + 1
    # Beyond the edge the outermost value is repeated, which is in the window anyway.
    return np.asarray(minimum_filter1d(values, size, axis=1, mode="nearest", origin=(size - 1) // 2))


def _follow(active: Floats, initial: Floats, delay: int) -> tuple[Floats, Floats]:
    """The sizes that reach an active path with no order in vain, and the machines that are then active."""
    windows = np.lib.stride_tricks.sliding_window_view
    after = np.repeat(active[-1:], delay, axis=0)
    machines: Floats = windows(np.concatenate([active, after]), delay + 1, axis=0).max(axis=-1)
    before = np.repeat(initial[None], delay, axis=0).astype(np.float32)
    return machines, windows(np.concatenate([before, machines]), delay + 1, axis=0).min(axis=-1)


class PlanController:
    """Plans when the episode begins, knowing its whole load, and follows the plan.

    Attributes:
        step_limits: as for ``plan``.
        plan: of the present episode; ``None`` before the first.
    """

    def __init__(self, step_limits: tuple[int, int] | None = None) -> None:
        self.step_limits = step_limits
        self.plan: Plan | None = None

    def start(self, simulation: Simulation) -> None:
        """A new episode begins."""
        load = simulation.load[simulation.history :]
        self.plan = plan(simulation.problem, load, simulation.fleets.active, self.step_limits)

    def change(self, simulation: Simulation) -> Floats:
        """Machines to add."""
        assert self.plan is not None, "start() comes first"
        change: Floats = np.subtract(self.plan.machines[simulation.time], simulation.fleets.total)
        return change


def run_optimum(
    problem: Problem,
    seeds: Sequence[int],
    profile: LoadProfile | None = None,
    step_limits: tuple[int, int] | None = None,
) -> tuple[Record, Plan]:
    """The optimum on the loads of ``seeds``: what the simulator makes of it, and the plan.

    Args:
        problem, seeds, profile: as for ``rollout.run``.
        step_limits: as for ``plan``.

    Raises:
        UserError: as for ``plan``.
    """
    controller = PlanController(step_limits)
    record = run(problem, seeds, controller, profile)
    assert controller.plan is not None
    return record, controller.plan
