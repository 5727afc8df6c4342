from __future__ import annotations

import io

from rich.console import Console

from training_src.benchmark.workflow import Measurement, measure_latency, results_table


def test_latency_is_measured_on_real_decisions_and_as_a_ratio_of_one_run() -> None:
    reference, step, whole = measure_latency(calls=300)

    assert 0 < step.value < reference.value
    assert step.ratio is not None and abs(step.ratio - reference.value / step.value) < 1e-6
    assert whole.value > step.value


def test_a_missed_goal_is_shown_as_missed() -> None:
    console = Console(width=130, record=True, file=io.StringIO())
    console.print(
        results_table(
            [
                Measurement("fast", 10.0, "us", "slow", 12.0, "10x", True),
                Measurement("sluggish", 5.0, "us", "slow", 2.0, "10x", False),
                Measurement("plain", 1.0, "s"),
            ]
        )
    )
    fast, sluggish, plain = console.export_text().splitlines()[1:]
    assert "12x slow" in fast and fast.rstrip().endswith("met")
    assert "2x slow" in sluggish and sluggish.rstrip().endswith("missed")
    assert not plain.rstrip().endswith(("met", "missed"))
