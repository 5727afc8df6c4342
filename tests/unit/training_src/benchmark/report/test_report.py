from __future__ import annotations

import json
import re
from collections.abc import Mapping
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest

from training_src.benchmark.document import Document
from training_src.benchmark.report import write_report
from training_src.benchmark.rollout import Record

Evaluation = tuple[Document, Mapping[str, Record]]
EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&"


class Tags(HTMLParser):
    """Names of the elements, and attributes that name another resource."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.resources: list[str] = []
        self.handlers: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.resources += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]


def test_a_report_is_a_page_and_pictures_and_nothing_else(tmp_path: Path, small_evaluation: Evaluation) -> None:
    files = write_report(tmp_path / "new" / "folder", *small_evaluation)

    assert files.page.name == "report.html"
    assert {path.name for path in files.page.parent.iterdir()} == {
        "report.html",
        *(path.name for path in files.pictures),
    }
    assert files.page.stat().st_size < 8_000_000


def test_the_page_names_no_other_resource_and_its_policy_forbids_all(
    tmp_path: Path, small_evaluation: Evaluation
) -> None:
    page = write_report(tmp_path, *small_evaluation).page.read_text()

    tags = Tags(page)
    assert tags.resources == []
    assert tags.names.count("script") == 3
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    assert unescape(policy).startswith("default-src 'none'; script-src 'sha256-")
    assert "http" not in policy and "unsafe-eval" not in policy


def test_names_from_outside_stay_text(tmp_path: Path, small_evaluation: Evaluation) -> None:
    document, records = small_evaluation
    plain = Tags(write_report(tmp_path, document, records).page.read_text())
    evil = document.model_copy(
        update={
            "policies": [policy.model_copy(update={"label": EVIL}) for policy in document.policies],
            "preset": EVIL,
            "notes": [EVIL],
            "candidate": document.candidate.model_copy(update={"name": EVIL}),
            "problem": document.problem | {EVIL: EVIL},
            "versions": {EVIL: EVIL},
        }
    )

    page = write_report(tmp_path, evil, records).page.read_text()

    tags = Tags(page)
    assert (tags.names, tags.handlers) == (plain.names, [])
    (data,) = re.findall(r'<script type="application/json" id="charts">(.*?)</script>', page)
    assert "load" in json.loads(data)


def test_a_candidate_without_a_learning_curve_is_said_to_have_none(
    tmp_path: Path, small_evaluation: Evaluation
) -> None:
    document, records = small_evaluation

    page = write_report(tmp_path, document.model_copy(update={"learning": []}), records).page.read_text()

    assert "carries no record of its training" in page
    assert 'id="learning"' not in page


def test_nothing_is_written_when_a_record_is_missing(tmp_path: Path, small_evaluation: Evaluation) -> None:
    document, records = small_evaluation

    with pytest.raises(ValueError, match="candidate"):
        write_report(tmp_path / "out", document, {id: record for id, record in records.items() if id != "candidate"})

    assert not (tmp_path / "out").exists()
