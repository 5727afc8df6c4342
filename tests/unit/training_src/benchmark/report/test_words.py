from __future__ import annotations

from collections.abc import Mapping

import pytest

from training_src.benchmark.document import Document
from training_src.benchmark.report import words
from training_src.benchmark.rollout import Record
from training_src.benchmark.statistics import Interval

Evaluation = tuple[Document, Mapping[str, Record]]


def with_gain(document: Document, gain: Interval) -> Document:
    gate = document.gate.model_copy(update={"over_best_rule": gain})
    return document.model_copy(update={"gate": gate})


@pytest.mark.parametrize(
    ("gain", "headline", "sentence"),
    [
        (Interval(130, 52, 206), "The candidate beats the best rule", "earns $130 a day more than"),
        (Interval(-50, -90, -10), "The candidate loses to the best rule", "earns $50 a day less than"),
        (
            Interval(12, -20, 144),
            "The candidate cannot be told apart from the best rule",
            "interval of the difference includes zero: \N{MINUS SIGN}$20 to +$144",
        ),
        (Interval(0, 0, 0), "The candidate cannot be told apart from the best rule", "$0.00 a day more than"),
    ],
)
def test_a_win_a_loss_and_a_draw_are_called_so(
    gain: Interval, headline: str, sentence: str, small_evaluation: Evaluation
) -> None:
    document = with_gain(small_evaluation[0], gain)

    assert words.headline(document) == headline
    assert sentence in words.verdict(document)[0]
    assert document.policy(document.gate.best_rule).label in words.verdict(document)[0]


def test_a_loss_is_told_with_the_interval_of_the_loss(small_evaluation: Evaluation) -> None:
    document = with_gain(small_evaluation[0], Interval(-500, -900, -100))

    assert words.verdict(document)[0].endswith("interval $100 to $900).")


def test_the_tally_counts_every_rule_once(small_evaluation: Evaluation) -> None:
    document = small_evaluation[0]
    gains = iter([Interval(5, 1, 9), Interval(-5, -9, -1), Interval(0, -1, 1), Interval(5, 1, 9)])
    policies = [
        policy.model_copy(update={"candidate_gain": next(gains)}) if policy.role == "rule" else policy
        for policy in document.policies
    ]

    tally = words.verdict(document.model_copy(update={"policies": policies}))[1]

    assert tally == "Of the 4 rule settings it beats 2, loses to 1 and cannot be told apart from 1."


def test_a_candidate_that_is_the_incumbent_is_called_so(small_evaluation: Evaluation) -> None:
    document = small_evaluation[0]

    same = document.model_copy(update={"incumbent": document.candidate})

    assert words.verdict(same)[2] == "It is the incumbent itself."


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2544.3, "$2,544"),
        (99.96, "$100"),
        (51.83, "$52"),
        (9.87, "$9.87"),
        (0.123, "$0.12"),
        (-12.04, "\N{MINUS SIGN}$12"),
        (-0.001, "$0.00"),
    ],
)
def test_money_has_cents_below_ten_dollars(value: float, text: str) -> None:
    assert words.dollars(value) == text


def test_the_parts_of_an_interval_have_the_same_precision() -> None:
    assert words.interval(Interval(130.4, 51.8, 206)) == "+$130 [+$52, +$206]"


def test_an_optimum_that_luck_can_undercut_is_called_so(small_evaluation: Evaluation) -> None:
    document = small_evaluation[0]
    expected = document.optimum.model_copy(update={"kind": "expected"})

    assert "no policy can cost less" in words.optimum_meaning(document)
    assert "luck can undercut" in words.optimum_meaning(document.model_copy(update={"optimum": expected}))


def test_a_grid_is_told_by_its_ends_when_it_is_long() -> None:
    grid = words.grid({"target": [0.4, 0.5, 0.6, 0.7, 0.8], "days": [1, 7]})

    assert grid == "target 0.4 to 0.8 (5 values); days 1, 7"


def test_the_best_setting_with_hindsight_is_told_beside_the_candidate(small_evaluation: Evaluation) -> None:
    document = small_evaluation[0]

    text = words.hindsight(document)

    assert "(static: machines 50) would cost $2,900 a day" in text
    assert text.endswith(f"the candidate costs {words.dollars(document.policy('candidate').per_day.cost)}.")
