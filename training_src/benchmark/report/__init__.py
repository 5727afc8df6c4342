"""The report of an evaluation: one self-contained HTML page, and pictures."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs, get_plotlyjs_version  # type: ignore[import-untyped]

from training_src.benchmark.document import Document
from training_src.benchmark.report import charts, palette, table, words
from training_src.benchmark.report.days import Days
from training_src.benchmark.report.pictures import draw_pictures
from training_src.benchmark.rollout import Record

__all__ = ["ReportFiles", "write_report"]


@dataclasses.dataclass(frozen=True)
class ReportFiles:
    """What a report consists of.

    Attributes:
        page: HTML; needs no other file and makes no request.
        pictures: PNGs.
    """

    page: Path
    pictures: tuple[Path, ...]


def write_report(folder: Path, document: Document, records: Mapping[str, Record]) -> ReportFiles:
    """Write ``report.html`` and the pictures; each file is there whole or not at all.

    Args:
        folder: made when it is missing.
        document: the figures.
        records: by id of the policy, on all loads in the order of the seeds: those of the candidate, the incumbent, the
            optimum and the best rule (``document.gate.best_rule``).

    Raises:
        ValueError: one of these records is missing.
    """
    shown = charts.shown_policies(document, records)
    days = Days.of(document, shown[0].record)
    contents = {"report.html": _page(document, shown, days).encode(), **draw_pictures(document, shown, days)}
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, content in contents.items():
        path = folder / name
        temporary = path.with_name(f".{name}.part")
        temporary.write_bytes(content)
        temporary.replace(path)
        paths.append(path)
    return ReportFiles(paths[0], tuple(paths[1:]))


def _page(document: Document, shown: list[charts.Shown], days: Days) -> str:
    environment = Environment(
        loader=PackageLoader("training_src.benchmark", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # ``tojson`` escapes <, > and & in strings, so that no name can end the script element that it is written into.
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    environment.filters |= {
        "dollars": words.dollars,
        "number": words.number,
        "percent": words.percent,
        "pretty": lambda value: json.dumps(value, indent=2, ensure_ascii=False),
    }
    script = files(__package__).joinpath("report.js").read_text(encoding="utf-8")
    scripts = [Markup(get_plotlyjs()), Markup(script)]
    chosen = {
        "load": charts.load_chart(shown, days),
        "violations": charts.violations_chart(shown, days),
        "costs": charts.costs_chart(document),
    }
    if document.learning:
        chosen["learning"] = charts.learning_chart(document.learning)
    return environment.get_template("template.html.j2").render(
        document=document,
        candidate=document.policy("candidate"),
        best=document.policy(document.gate.best_rule),
        optimum=document.policy("optimum"),
        shown=shown,
        days=days,
        words=words,
        table=table,
        palette=palette,
        charts=chosen,
        plotly_version=get_plotlyjs_version(),
        style=Markup(files(__package__).joinpath("report.css").read_text(encoding="utf-8")),
        scripts=scripts,
        script_sources=[_digest(text) for text in scripts],
    )


def _digest(script: str) -> str:
    """How a content security policy names a script that may run."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
