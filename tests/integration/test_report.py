"""The report in a real browser: it draws, it reacts, and it asks for nothing."""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from training_src.benchmark.document import Document
from training_src.benchmark.report import write_report
from training_src.benchmark.rollout import Record

Evaluation = tuple[Document, Mapping[str, Record]]

BROWSERS = (os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome")
SIZES: dict[str, dict[str, Any]] = {
    "laptop": {"viewport": {"width": 1280, "height": 800}},
    "phone": {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True},
}
EVIL = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        message = "no Chromium: install Debian's chromium, or set CHROMIUM to the browser's path"
        if "CI" in os.environ:
            pytest.fail(message)
        pytest.skip(message)
    # Chromium's own sandbox does not work for root.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, small_evaluation: Evaluation) -> Path:
    return write_report(tmp_path_factory.mktemp("report"), *small_evaluation).page


@dataclasses.dataclass
class Visit:
    """An open page and what it did that it must not do."""

    page: Page
    complaints: list[str]

    def range(self, axis: str = "xaxis") -> list[Any]:
        found: list[Any] = self.page.evaluate(f"document.getElementById('load').layout.{axis}.range")
        return found

    def count(self, selector: str) -> int:
        return self.page.locator(selector).count()


def wait_for(page: Page, condition: str) -> None:
    """Wait for a JavaScript condition; ``Page.wait_for_function`` needs eval, which the page forbids."""
    deadline = time.monotonic() + 10
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, f"never came true: {condition}"
        page.wait_for_timeout(20)


def visit(browser: Browser, path: Path, **options: Any) -> Visit:
    page = browser.new_page(**options)
    page.set_default_timeout(10_000)
    opened = Visit(page, [])
    page.on("console", lambda m: m.type in ("error", "warning") and opened.complaints.append(f"{m.type}: {m.text}"))
    page.on("pageerror", lambda error: opened.complaints.append(f"error: {error}"))
    page.on("request", lambda r: _is_local(r.url, path) or opened.complaints.append(f"request: {r.url}"))
    page.goto(path.as_uri())
    wait_for(page, "[...document.querySelectorAll('.chart')].every((chart) => chart.querySelector('.main-svg'))")
    return opened


def _is_local(url: str, path: Path) -> bool:
    return url == path.as_uri() or url.startswith(("data:", "blob:"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_every_chart_draws_without_a_complaint_or_a_request(
    size: str, scheme: Any, browser: Browser, report: Path
) -> None:
    opened = visit(browser, report, **SIZES[size], color_scheme=scheme)

    assert opened.count("#load .scatterlayer path.js-line") == 4  # load, candidate, rule, optimum
    assert opened.count("#load .scatterlayer path.js-fill") == 1
    assert opened.count("#violations .heatmaplayer image") == 1
    assert opened.count("#costs .scatterlayer path.point") == 7
    assert opened.count("#learning .scatterlayer path.point") == 3
    lines = opened.page.locator("#load .scatterlayer path.js-line")
    assert all(len(lines.nth(index).get_attribute("d") or "") > 1000 for index in range(4))
    assert opened.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert "machine-hours" in opened.page.inner_text("#load-figures-0")
    assert opened.complaints == []
    opened.page.close()


def test_charts_take_the_colours_of_the_page_and_change_with_them(browser: Browser, report: Path) -> None:
    opened = visit(browser, report)
    line = "getComputedStyle([...document.querySelectorAll('#load path.js-line')].at(-1)).stroke"
    page = opened.page
    before = page.evaluate(line)

    page.emulate_media(color_scheme="dark")
    wait_for(page, f"{line} !== '{before}'")
    page.emulate_media(color_scheme="dark", media="print")
    wait_for(page, f"{line} === '{before}'")

    assert opened.complaints == []
    page.close()


def test_buttons_and_a_drag_move_through_the_days(browser: Browser, report: Path) -> None:
    opened = visit(browser, report)
    page = opened.page
    start = opened.range()

    page.get_by_role("button", name="All").click()
    assert opened.range() == ["2001-01-01T00:00:00", "2001-01-04T00:00:00"]
    assert page.inner_text("#load-title") == "Day 1 to day 3"
    assert page.get_by_role("button", name="Later").is_disabled()
    page.get_by_role("button", name="Most eventful day").click()
    assert [str(end)[:10] for end in opened.range()] == [str(end)[:10] for end in start]

    page.get_by_role("button", name="All").click()
    page.get_by_role("button", name="1 day").click()
    assert opened.range() == ["2001-01-02T00:00:00", "2001-01-03T00:00:00"]
    page.get_by_role("button", name="Later").click()
    assert opened.range() == ["2001-01-03T00:00:00", "2001-01-04T00:00:00"]
    assert page.inner_text("#load-title") == "Day 3"
    page.get_by_role("button", name="Earlier").click()
    page.get_by_role("button", name="6 hours").click()
    assert opened.range() == ["2001-01-02T09:00:00", "2001-01-02T15:00:00"]

    page.locator("#load").scroll_into_view_if_needed()
    box = page.locator("#load .nsewdrag").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 60, steps=5)
    page.mouse.up()
    wait_for(page, "document.getElementById('load').layout.xaxis.range[0].startsWith('2001-01-02 10:')")
    assert opened.complaints == []
    page.close()


def test_the_vertical_axis_fits_the_days_in_view(browser: Browser, report: Path, small_evaluation: Evaluation) -> None:
    opened = visit(browser, report)
    document, records = small_evaluation
    shown = [records[id].active[:, 0] for id in ("candidate", "incumbent", "optimum", document.gate.best_rule)]
    tops = np.max([records["candidate"].load[:, 0] / 300.0, *shown], axis=0).reshape(3, 1440).max(axis=1)

    opened.page.get_by_role("button", name="All").click()
    everything = opened.range("yaxis")[1]
    opened.page.get_by_role("button", name="1 day").click()
    second = opened.range("yaxis")[1]

    assert [everything, second] == pytest.approx([1.08 * tops.max(), 1.08 * tops[1]], rel=1e-6)
    opened.page.close()


def test_hovering_tells_load_and_machines(browser: Browser, report: Path) -> None:
    opened = visit(browser, report)
    page = opened.page

    page.locator("#load .nsewdrag").hover()
    load = page.locator("#load .hoverlayer").text_content() or ""
    page.locator("#costs .scatterlayer path.point").first.hover(force=True)
    page.locator("#costs .hoverlayer .hovertext").first.wait_for()

    assert all(
        part in load for part in ("day ", "requests)", "active,", "pending,", "Candidate", "Best rule", "Optimum")
    )
    assert "violation minutes a day" in (page.locator("#costs .hoverlayer").text_content() or "")
    assert opened.complaints == []
    page.close()


def test_a_chart_is_saved_as_a_picture_and_sent_nowhere(browser: Browser, report: Path) -> None:
    opened = visit(browser, report)
    page = opened.page
    page.locator("#load .nsewdrag").hover()
    buttons = page.locator("#load .modebar-btn").evaluate_all("all => all.map((one) => one.dataset.title)")

    with page.expect_download() as download:
        page.locator("#load .modebar-btn[data-title*='Download']").click()

    assert download.value.path().read_bytes().startswith(b"\x89PNG")
    assert len(buttons) == 6
    assert not [title for title in buttons if "Share" in title or "Cloud" in title]
    assert opened.complaints == []
    page.close()


def test_the_heat_map_shows_the_chosen_policy(browser: Browser, report: Path) -> None:
    opened = visit(browser, report)
    page = opened.page
    image = "document.querySelector('#violations .heatmaplayer image').href.baseVal"
    candidate = page.evaluate(image)

    page.locator("#violations-controls").get_by_role("button", name="Incumbent").click()
    wait_for(page, f"{image} !== {candidate!r}")

    assert page.inner_text("#violations-reading").startswith("Incumbent: ")
    assert page.locator("#violations-controls [aria-pressed=true]").inner_text() == "Incumbent"
    assert opened.complaints == []
    page.close()


def test_a_click_on_a_title_sorts_the_table(browser: Browser, report: Path) -> None:
    opened = visit(browser, report)
    page = opened.page
    values = "[...document.querySelectorAll('.policies tbody tr')].map((row) => Number(row.cells[6].dataset.value))"

    page.get_by_role("button", name="machine-hours").click()
    ascending = page.evaluate(values)
    page.get_by_role("button", name="machine-hours").click()
    descending = page.evaluate(values)

    assert ascending == sorted(ascending)
    assert descending == ascending[::-1]
    assert page.locator("th[aria-sort]").get_attribute("aria-sort") == "descending"
    page.close()


def test_on_a_phone_the_table_scrolls_under_a_fixed_first_column(browser: Browser, report: Path) -> None:
    opened = visit(browser, report, **SIZES["phone"])
    page = opened.page
    left = "document.querySelector('.policies tbody th').getBoundingClientRect().left"
    before = page.evaluate(left)

    page.evaluate("document.querySelector('.policies').parentElement.scrollLeft = 300")

    assert page.evaluate("document.querySelector('.policies').parentElement.scrollLeft") == 300
    assert page.evaluate(left) == before
    page.close()


def test_labels_in_the_cost_chart_do_not_collide(browser: Browser, report: Path) -> None:
    opened = visit(browser, report)

    boxes = opened.page.evaluate(
        "[...document.querySelectorAll('#costs .textpoint text')].filter((text) => text.textContent)"
        ".map((text) => { const b = text.getBoundingClientRect(); return [b.left, b.right, b.top, b.bottom]; })"
    )

    assert len(boxes) >= 4
    for index, (left, right, top, bottom) in enumerate(boxes):
        for other in boxes[index + 1 :]:
            assert right <= other[0] or left >= other[1] or bottom <= other[2] + 3 or top >= other[3] - 3
    opened.page.close()


def test_a_script_in_a_name_does_nothing(browser: Browser, tmp_path: Path, small_evaluation: Evaluation) -> None:
    document, records = small_evaluation
    evil = document.model_copy(
        update={
            "policies": [policy.model_copy(update={"label": EVIL}) for policy in document.policies],
            "preset": EVIL,
            "notes": [EVIL],
        }
    )

    opened = visit(browser, write_report(tmp_path, evil, records).page)
    opened.page.locator("#costs .scatterlayer path.point").last.hover(force=True)

    assert opened.page.evaluate("window.hacked") is None
    assert opened.count("img") == 0
    assert EVIL in opened.page.inner_text("header")
    assert opened.complaints == []
    opened.page.close()


def test_a_script_that_is_not_the_reports_own_is_refused(browser: Browser, report: Path, tmp_path: Path) -> None:
    tampered = tmp_path / "report.html"
    page = report.read_text(encoding="utf-8")
    tampered.write_text(page.replace("</main>", "</main><script>window.hacked = 1</script>", 1), encoding="utf-8")

    opened = visit(browser, tampered)

    assert opened.page.evaluate("window.hacked") is None
    assert any("Content Security Policy" in complaint for complaint in opened.complaints)
    opened.page.close()


def test_a_trace_is_shown_in_utc_whatever_the_readers_time_zone(
    browser: Browser, tmp_path: Path, small_evaluation: Evaluation
) -> None:
    document, records = small_evaluation
    loads = document.loads.model_copy(update={"start": "1995-08-01T00:00:00+00:00"})
    path = write_report(tmp_path, document.model_copy(update={"loads": loads}), records).page

    opened = visit(browser, path, timezone_id="America/Los_Angeles")
    opened.page.get_by_role("button", name="All").click()
    opened.page.get_by_role("button", name="1 day").click()

    assert opened.range() == ["1995-08-02T00:00:00", "1995-08-03T00:00:00"]
    assert opened.page.inner_text("#load-title") == "Wed 2 Aug 1995"
    assert "UTC" in (opened.page.text_content("#violations .xtitle") or "")
    assert opened.complaints == []
    opened.page.close()
