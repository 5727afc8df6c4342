from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
import pytest
from matplotlib.image import imread

from training_src.benchmark.document import Document
from training_src.benchmark.report.charts import shown_policies
from training_src.benchmark.report.days import Days
from training_src.benchmark.report.palette import LIGHT
from training_src.benchmark.report.pictures import draw_pictures
from training_src.benchmark.rollout import Record

Evaluation = tuple[Document, Mapping[str, Record]]


def draw(document: Document, records: Mapping[str, Record]) -> dict[str, bytes]:
    return draw_pictures(document, shown_policies(document, records), Days.of(document, records["candidate"]))


def holds(png: bytes, colour: str) -> bool:
    pixels = np.round(imread(io.BytesIO(png))[:, :, :3] * 255).astype(int)
    wanted = [int(LIGHT[colour][i : i + 2], 16) for i in (1, 3, 5)]
    return bool((np.abs(pixels - wanted).max(axis=2) <= 1).any())


def test_pictures_show_everybody_in_their_colours(small_evaluation: Evaluation) -> None:
    pictures = draw(*small_evaluation)

    assert list(pictures) == ["load-and-capacity.png", "cost-and-violations.png", "learning-curve.png"]
    for name, colours in {
        "load-and-capacity.png": ("candidate", "rule", "optimum"),
        "cost-and-violations.png": ("candidate", "rule", "optimum", "incumbent"),
        "learning-curve.png": ("candidate",),
    }.items():
        assert all(holds(pictures[name], colour) for colour in colours), name
        assert len(pictures[name]) < 300_000


def test_without_a_learning_curve_there_is_no_picture_of_it(small_evaluation: Evaluation) -> None:
    document, records = small_evaluation

    assert "learning-curve.png" not in draw(document.model_copy(update={"learning": []}), records)


@pytest.mark.parametrize("label", ["<script>alert(1)</script>", "$x_1$ \\frac", "a" * 300])
def test_any_name_can_be_drawn(label: str, small_evaluation: Evaluation) -> None:
    document, records = small_evaluation
    policies = [policy.model_copy(update={"label": label}) for policy in document.policies]

    pictures = draw(document.model_copy(update={"policies": policies}), records)

    assert all(png.startswith(b"\x89PNG") for png in pictures.values())
