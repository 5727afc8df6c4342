from __future__ import annotations

from collections.abc import Mapping

from training_src.benchmark.document import Document
from training_src.benchmark.report.table import COLUMNS, rows
from training_src.benchmark.rollout import Record

Evaluation = tuple[Document, Mapping[str, Record]]


def test_all_policies_are_in_the_table_the_cheapest_first(small_evaluation: Evaluation) -> None:
    document, _ = small_evaluation

    found = rows(document)

    costs = [row.policy.per_day.cost for row in found]
    assert costs == sorted(costs) and len(found) == len(document.policies)
    assert found[0].policy.role == "optimum"
    assert all([column for column, _ in row.cells] == list(COLUMNS) for row in found)


def test_a_figure_that_a_policy_does_not_have_is_left_blank(small_evaluation: Evaluation) -> None:
    document, _ = small_evaluation

    (candidate,) = [row for row in rows(document) if row.policy.role == "candidate"]

    cells = {column.title: cell for column, cell in candidate.cells}
    assert (cells["candidate's gain"].text, cells["candidate's gain"].value) == ("", None)
    assert cells["cost, $"].value == document.policy("candidate").per_day.cost
    assert candidate.mark == ""
