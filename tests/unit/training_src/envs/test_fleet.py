from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training_src.envs.fleet import FleetBatch
from training_src.problem import Fleet

CHANGES = st.lists(st.lists(st.integers(-12, 12), min_size=3, max_size=3), max_size=40)


class OneFleet:
    """A fleet of single machines, each with the step at which it begins to serve."""

    def __init__(self, settings: Fleet, machines: int) -> None:
        self.settings = settings
        self.machines = [-1] * machines
        self.requested = self.released = self.step = 0

    def advance(self, change: int) -> None:
        wanted = len(self.machines) + change
        wanted = min(max(wanted, self.settings.min_machines), self.settings.max_machines)
        while len(self.machines) > wanted:  # the youngest order is the one that is due last
            self.machines.remove(max(self.machines))
            self.released += 1
        while len(self.machines) < wanted:
            self.machines.append(self.step + self.settings.provisioning_delay)
            self.requested += 1
        self.step += 1

    def due_in(self, steps: int) -> int:
        return sum(due == self.step - 1 + steps for due in self.machines)

    @property
    def active(self) -> int:
        return sum(due < self.step for due in self.machines)


@given(changes=CHANGES, delay=st.integers(0, 6), low=st.integers(0, 5), room=st.integers(0, 25))
def test_machines_are_those_requested_less_those_released_less_those_pending(
    changes: list[list[int]], delay: int, low: int, room: int
) -> None:
    settings = Fleet(provisioning_delay=delay, min_machines=low, max_machines=max(1, low + room))
    fleets = FleetBatch(settings, 3)
    fleets.reset(np.array([0.0, 10.0, 100.0], np.float32))
    start = fleets.active.copy()
    references = [OneFleet(settings, int(machines)) for machines in start]
    for change in changes:
        made = fleets.advance(np.array(change, np.float32))
        for lane, reference in enumerate(references):
            before = len(reference.machines)
            reference.advance(change[lane])
            assert made[lane] == len(reference.machines) - before
            conserved = start[lane] + reference.requested - reference.released
            assert fleets.active[lane] == conserved - fleets.pending[lane] == reference.active
            assert fleets.total[lane] == len(reference.machines)
            assert fleets.queue[:, lane].tolist() == [reference.due_in(j + 1) for j in range(delay)]
        assert (fleets.queue.sum(axis=0) == fleets.pending).all()


@pytest.mark.parametrize("delay", [0, 1, 5])
def test_an_order_serves_exactly_the_provisioning_delay_later(delay: int) -> None:
    fleets = FleetBatch(Fleet(provisioning_delay=delay), 1)
    fleets.reset(np.array([10.0], np.float32))
    active = []
    for step in range(delay + 2):
        fleets.advance(np.array([3.0 if step == 0 else 0.0], np.float32))
        active.append(fleets.active.item())
    # Element t is what serves step t; the order was made at step 0.
    assert active == [10.0] * delay + [13.0, 13.0]


def test_scale_in_cancels_the_youngest_order_first_then_takes_active_machines() -> None:
    fleets = FleetBatch(Fleet(provisioning_delay=4), 1)
    fleets.reset(np.array([10.0], np.float32))
    for change in (2.0, 3.0, 4.0):
        fleets.advance(np.array([change], np.float32))
    assert fleets.queue[:, 0].tolist() == [0.0, 2.0, 3.0, 4.0]
    fleets.advance(np.array([-5.0], np.float32))
    assert fleets.queue[:, 0].tolist() == [2.0, 2.0, 0.0, 0.0]
    assert fleets.active.item() == 10.0
    fleets.advance(np.array([-7.0], np.float32))
    assert fleets.queue[:, 0].tolist() == [0.0, 0.0, 0.0, 0.0]
    assert fleets.active.item() == 7.0


def test_the_limits_count_pending_machines_and_hold_at_the_start() -> None:
    fleets = FleetBatch(Fleet(min_machines=2, max_machines=12, provisioning_delay=3), 3)
    fleets.reset(np.array([0.0, 10.0, 99.0], np.float32))
    assert fleets.active.tolist() == [2.0, 10.0, 12.0]
    assert fleets.advance(np.array([-1.0, 5.0, 1.0], np.float32)).tolist() == [0.0, 2.0, 0.0]
    assert fleets.advance(np.array([1.0, 5.0, -99.0], np.float32)).tolist() == [1.0, 0.0, -10.0]
    assert fleets.total.tolist() == [3.0, 12.0, 2.0]


@pytest.mark.parametrize(("billing", "billed"), [("request", [12.0, 12.0, 12.0]), ("activation", [10.0, 10.0, 12.0])])
def test_a_machine_costs_from_its_request_or_from_its_activation(billing: str, billed: list[float]) -> None:
    fleets = FleetBatch(Fleet.model_validate({"provisioning_delay": 2, "billing": billing}), 1)
    fleets.reset(np.array([10.0], np.float32))
    found = []
    for change in (2.0, 0.0, 0.0):
        fleets.advance(np.array([change], np.float32))
        found.append(fleets.billed.item())
    assert found == billed


def test_a_start_forgets_what_was_pending() -> None:
    fleets = FleetBatch(Fleet(provisioning_delay=2), 1)
    fleets.reset(np.array([10.0], np.float32))
    fleets.advance(np.array([5.0], np.float32))
    fleets.reset(np.array([4.0], np.float32))
    for _ in range(3):
        fleets.advance(np.array([0.0], np.float32))
    assert (fleets.active.item(), fleets.pending.item()) == (4.0, 0.0)
