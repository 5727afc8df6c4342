from __future__ import annotations

import base64
import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from training_src.benchmark.document import Document
from training_src.benchmark.metrics import summarise
from training_src.benchmark.report.charts import MOST_DAYS, costs_chart, load_chart, shown_policies, violations_chart
from training_src.benchmark.report.days import Days
from training_src.benchmark.rollout import Record

Evaluation = tuple[Document, Mapping[str, Record]]


def unpacked(packed: dict[str, Any]) -> npt.NDArray[np.float32]:
    values = np.frombuffer(base64.b64decode(packed["bdata"]), "<f4")
    return values.reshape([int(size) for size in packed["shape"].split(",")]) if "shape" in packed else values


def with_result(document: Document, id: str, **measures: float) -> Document:
    policies = [
        policy.model_copy(update={"per_day": dataclasses.replace(policy.per_day, **measures)})
        if policy.id == id
        else policy
        for policy in document.policies
    ]
    return document.model_copy(update={"policies": policies})


def test_a_missing_record_is_named(small_evaluation: Evaluation) -> None:
    document, records = small_evaluation

    with pytest.raises(ValueError, match="no record of 'optimum'"):
        shown_policies(document, {id: record for id, record in records.items() if id != "optimum"})


def test_the_load_chart_holds_the_first_load_and_what_served_it(small_evaluation: Evaluation) -> None:
    document, records = small_evaluation
    record = records["candidate"]

    chart = load_chart(shown_policies(document, records), Days.of(document, record))

    load = next(trace for trace in chart["data"] if trace["name"] == "Load, in machines")
    np.testing.assert_array_equal(unpacked(load["customdata"]), record.load[:, 0])
    lines = {trace["name"]: trace for trace in chart["data"] if trace.get("line", {}).get("shape") == "hv"}
    assert list(lines) == ["Incumbent", "Optimum", "Best rule", "Candidate"]
    np.testing.assert_array_equal(unpacked(lines["Candidate"]["y"]), record.active[:, 0])
    pending, failed = unpacked(lines["Candidate"]["customdata"]).T
    np.testing.assert_array_equal(pending, (record.machines - record.active)[:, 0])
    np.testing.assert_allclose(failed, 100 * (record.failed / record.load)[:, 0], rtol=1e-5)
    assert lines["Incumbent"]["visible"] == "legendonly"
    assert [day["label"] for day in chart["days"]] == ["day 1", "day 2", "day 3"]


@pytest.mark.parametrize("billing", ["request", "activation"])
def test_the_figures_of_a_day_count_the_machines_that_are_paid_for(billing: str, small_evaluation: Evaluation) -> None:
    document, records = small_evaluation
    fleet = records["candidate"].problem.fleet.model_copy(update={"billing": billing})
    problem = records["candidate"].problem.model_copy(update={"fleet": fleet})
    billed = {id: dataclasses.replace(record, problem=problem) for id, record in records.items()}

    days = load_chart(shown_policies(document, billed), Days.of(document, records["candidate"]))["days"]

    first = summarise(billed["candidate"].lanes(0), block_steps=1440)
    assert [day["machineHours"][0] for day in days] == pytest.approx(first.machine_hours.tolist())
    assert [day["violationMinutes"][0] for day in days] == first.violation_minutes.tolist()


def test_minutes_in_violation_lie_on_the_line_of_their_policy(small_evaluation: Evaluation) -> None:
    document, records = small_evaluation
    record = records["incumbent"]

    chart = load_chart(shown_policies(document, records), Days.of(document, record))

    marks = next(t for t in chart["data"] if t.get("legendgroup") == "incumbent" and t["mode"] == "markers")
    bad = np.flatnonzero(record.violation[:, 0])
    assert len(bad)
    np.testing.assert_array_equal(unpacked(marks["y"]), record.active[bad, 0])
    minutes = [(np.datetime64(x) - np.datetime64("2001-01-01")) // np.timedelta64(1, "m") for x in marks["x"]]
    assert minutes == bad.tolist()


def test_a_long_load_is_cut_to_the_days_around_the_most_eventful_one(small_evaluation: Evaluation) -> None:
    document, records = small_evaluation
    long = {}
    for id, record in records.items():
        fields = [field.name for field in dataclasses.fields(record)[1:]]
        long[id] = dataclasses.replace(record, **{name: np.tile(getattr(record, name), (12, 1)) for name in fields})
    long["candidate"].load[20 * 1440 + 600 :, 0] += 1e6
    days = Days.of(document, long["candidate"])

    chart = load_chart(shown_policies(document, long), days)

    assert len(chart["days"]) == MOST_DAYS
    assert chart["days"][chart["opens"]]["label"] == "day 21"
    assert len(unpacked(chart["data"][0]["y"])) == MOST_DAYS * 1440
    assert chart["data"][0]["x0"] == chart["days"][0]["from"] == "2001-01-14T00:00:00"


def test_the_heat_map_adds_up_to_the_violation_minutes_of_all_loads(small_evaluation: Evaluation) -> None:
    document, records = small_evaluation

    chart = violations_chart(shown_policies(document, records), Days.of(document, records["candidate"]))

    assert chart["data"][0]["y"] == [f"episode {load}, day {day}" for load in (1, 2) for day in (1, 2, 3)]
    choices = {choice["title"]: choice for choice in chart["choices"]}
    for title, id in {"Candidate": "candidate", "Incumbent": "incumbent"}.items():
        minutes = unpacked(choices[title]["z"])
        expected = records[id].violation.T.reshape(2, 3, 24, 60).sum(axis=3).reshape(6, 24)
        np.testing.assert_array_equal(minutes, expected)
        assert choices[title]["text"].startswith(f"{expected.sum():,} violation minutes on ")


def test_hours_outside_the_record_are_not_shown_as_free_of_violations(small_evaluation: Evaluation) -> None:
    document, records = small_evaluation
    loads = document.loads.model_copy(update={"start": "2024-05-01T22:00:00+00:00"})
    document = document.model_copy(update={"loads": loads})

    chart = violations_chart(shown_policies(document, records), Days.of(document, records["candidate"]))

    minutes = unpacked(chart["choices"][0]["z"]).reshape(2, 4, 24)
    assert np.isnan(minutes[:, 0, :22]).all() and np.isnan(minutes[:, 3, 22:]).all()
    assert np.isfinite(minutes[:, 0, 22:]).all() and np.isfinite(minutes[:, 1:3]).all()


def test_every_policy_is_in_the_cost_chart_tuned_rules_filled(small_evaluation: Evaluation) -> None:
    document, _ = small_evaluation

    traces = {trace["name"]: trace for trace in costs_chart(document)["data"]}

    assert sum(len(trace["y"]) for trace in traces.values()) == len(document.policies)
    assert traces["Rule, tuned"]["text"] == ["the static-tuned policy"]
    assert not traces["Rule, tuned"]["marker"]["symbol"].endswith("-open")
    assert traces["Rule, untuned"]["marker"]["symbol"].endswith("-open")
    best = document.policy(document.gate.best_rule)
    assert traces["Best rule"]["text"] == [best.label]
    assert traces["Best rule"]["marker"]["size"] > traces["Rule, untuned"]["marker"]["size"]
    assert traces["Optimum"]["marker"]["symbol"] == "star"


def test_axes_are_compressed_when_one_policy_is_far_off_and_hover_keeps_the_figures(
    small_evaluation: Evaluation,
) -> None:
    near = small_evaluation[0]
    for policy in near.policies:
        near = with_result(near, policy.id, cost=2000.0, violation_minutes=2.0)

    far = costs_chart(with_result(near, "static-tuned", cost=90_000.0, violation_minutes=400.0))

    assert "type" not in costs_chart(near)["layout"]["yaxis"]
    assert "scale" not in costs_chart(near)["layout"]["xaxis"]["title"]["text"]
    assert far["layout"]["yaxis"]["type"] == "log"
    assert "square-root scale" in far["layout"]["xaxis"]["title"]["text"]
    tuned = next(trace for trace in far["data"] if trace["name"] == "Rule, tuned")
    assert (tuned["x"], tuned["customdata"]) == ([20.0], [400.0])


def test_names_are_escaped_for_plotly(small_evaluation: Evaluation) -> None:
    document, _ = small_evaluation
    policies = [policy.model_copy(update={"label": "<b>bold</b>"}) for policy in document.policies]

    chart = costs_chart(document.model_copy(update={"policies": policies}))

    assert {text for trace in chart["data"] for text in trace["text"]} == {"&lt;b&gt;bold&lt;/b&gt;"}
