from __future__ import annotations

from pathlib import Path

import pytest

from training_src.errors import UserError
from training_src.hyperparameters import resolve_run
from training_src.presets import load_preset
from training_src.problem import Problem

CLASSIC = load_preset("classic")


def problem_on(trace: Path, **hyperparameters: str) -> Problem:
    problem = resolve_run(hyperparameters, trace)[0].problem()
    assert problem is not None
    return problem


def test_a_trace_keeps_the_scale_of_the_problem(trace: Path) -> None:
    before, after = CLASSIC.problem(), problem_on(trace, preset="classic")
    assert before is not None and after is not None
    assert after.load.kind == "trace" and after.load.part == "train"
    assert after.fleet.throughput == pytest.approx(10 / 40, rel=0.01)
    assert after.fleet.throughput_noise / after.fleet.throughput == pytest.approx(30 / 300)
    assert after.economics.success_value * after.fleet.throughput == pytest.approx(0.9 * 300)
    assert after.economics.machine_cost == before.economics.machine_cost
    assert after.episode_steps == 1440  # half of the two training days after the first


def test_a_throughput_that_is_given_is_kept(trace: Path) -> None:
    problem = problem_on(trace, preset="smoke", fleet_throughput="2.5")
    assert (problem.fleet.throughput, problem.economics.success_value) == (2.5, 0.9)


def test_hyperparameters_say_how_the_trace_is_read(trace: Path) -> None:
    problem = problem_on(trace, preset="smoke", load_train_share="0.4", load_values="count")
    assert problem.load.kind == "trace"
    assert (problem.load.path, problem.load.train_share) == (str(trace), 0.4)
    # Counts over five minutes are a fifth of that in a minute.
    rate = problem_on(trace, preset="smoke", load_train_share="0.4")
    assert problem.fleet.throughput == pytest.approx(rate.fleet.throughput / 5)


def test_without_a_trace_the_preset_is_left_as_it_is() -> None:
    preset, trace = resolve_run({"preset": "classic"}, None)
    assert preset == CLASSIC and trace is None


def test_a_trace_that_the_preset_names_is_fitted_like_that_of_the_channel(trace: Path) -> None:
    hyperparameters = {"preset": "smoke", "load_kind": "trace", "load_path": str(trace)}
    by_name, by_channel = resolve_run(hyperparameters, None), resolve_run({"preset": "smoke"}, trace)
    assert by_name[0].problem() == by_channel[0].problem()
    assert by_name[1] is not None and "1,440 rows" in str(by_name[1].report)


def test_the_days_that_test_a_policy_do_not_train_it(trace: Path) -> None:
    with pytest.raises(UserError, match="load_part: 'test' cannot be chosen"):
        resolve_run({"preset": "smoke", "load_part": "test"}, trace)


def test_a_load_too_small_for_the_settings_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "tiny.csv"
    path.write_text("timestamp,value\n" + "".join(f"{300 * i},{1e-14 * (2 + i % 2)}\n" for i in range(5 * 288)))
    with pytest.raises(UserError, match=r"tiny.csv: the load cannot be scaled to the fleet: .*success_value"):
        resolve_run({"preset": "smoke"}, path)


def test_another_environment_takes_no_trace(trace: Path) -> None:
    with pytest.raises(UserError, match="takes no trace"):
        resolve_run({"environment_id": "CartPole-v1", "reward": "reward"}, trace)
