"""The page of ``db profile --html`` in Chromium: what it shows, and what a user can do there."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.browsing import ARGUMENTS, CHROMIUM, driven, needs_chromium
from tests.cli.commands.profile_lab import Profiling

ODD = "</script><script>document.title=document.body</script>"
WORK = f"""
with engine.begin() as first:
    for number in range(20):
        first.execute(sa.text("select 'a', :n from pg_class limit 1"), {{"n": number}})
    with first.begin_nested():
        first.execute(sa.text('select 1 as "{ODD}"'))
with engine.begin() as second:
    second.execute(sa.text("select pg_sleep(0.1)"))
    try:
        second.execute(sa.text("select 1/0"))
    except sa.exc.DBAPIError:
        second.rollback()
"""
WINDOWS: dict[str, dict[str, Any]] = {
    "light": {"viewport": {"width": 1200, "height": 800}},
    "dark": {"viewport": {"width": 1200, "height": 800}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 360, "height": 640}},
}


class Text(HTMLParser):
    """The text that a script wrote into elements, by their IDs."""

    def __init__(self, page: str):
        super().__init__()
        self.found: dict[str, str] = {}
        self._within = ""
        self.feed(page)

    def handle_starttag(self, _tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._within = dict(attrs).get("id") or self._within

    def handle_data(self, data: str) -> None:
        self.found[self._within] = self.found.get(self._within, "") + data


@pytest.fixture
def file(profile: Profiling, tmp_path: Path) -> Path:
    page = tmp_path / "profile.html"
    done = profile("--write", "--html", str(page), "-c", WORK)
    assert done.code == 0, done.err
    return page


@needs_chromium
def test_html_report_scripts_run_and_show_all_statements(file: Path, tmp_path: Path) -> None:
    command = [
        str(CHROMIUM),
        *ARGUMENTS,
        *("--headless=new", "--disable-gpu", f"--user-data-dir={tmp_path / 'chromium'}"),
        *("--enable-logging=stderr", "--dump-dom", file.as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    shown = Text(done.stdout).found
    assert shown["count"].strip() == "6 total"
    assert "transaction committed" in shown["legend"]
    assert "failed statement" in shown["legend"]
    assert "savepoints" in shown["legend"]
    for words in (
        "select ?, ? from pg_class limit ?",
        ODD,
        "n+1: same SELECT from one line, 20 times",
        "failed: 1 of 1 failed: DivisionByZero",
    ):
        assert words in shown["body"]
    assert "<title>Query profile</title>" in done.stdout


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with driven() as browser:
        yield browser


@needs_chromium
@pytest.mark.parametrize("window", list(WINDOWS))
def test_html_report_can_be_sorted_filtered_zoomed_and_printed(
    file: Path, chromium: Any, window: str
) -> None:
    page = chromium.new_context(**WINDOWS[window]).new_page()
    asked: list[str] = []
    page.on("request", lambda sent: asked.append(sent.url))
    page.on("console", lambda said: asked.append(said.text))
    page.on("pageerror", lambda error: asked.append(str(error)))
    page.goto(file.as_uri())
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= WINDOWS[window]["viewport"]["width"]
    first = page.locator("#body tr").first
    assert "pg_sleep" in first.inner_text()
    page.locator("#head button", has_text="Calls").click()
    assert "select ?, ?" in first.inner_text()
    page.locator("#odd").check()
    assert page.locator("#count").inner_text() == "2 of 6"
    page.locator("#odd").uncheck()
    page.locator("#filter").fill("savepoint")
    assert page.locator("#body tr").count() == 2
    assert page.locator("#count").inner_text() == "2 of 6"

    page.locator("#timeline").scroll_into_view_if_needed()
    box = page.locator("#timeline").bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * 0.4, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.8, middle)
    page.mouse.up()
    page.locator("#whole").click()
    assert not page.locator("#whole").is_visible()
    page.pdf()
    assert [one for one in asked if one != file.as_uri()] == []
    page.context.close()


PLANNED = """
session.execute(sa.text(
    "SELECT count(*) FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid"
    " WHERE c.relname::text LIKE '%p%' AND a.attnum * 0 > 5"
)).all()
"""


@needs_chromium
def test_html_report_draws_plan_and_marks_wrong_estimates(
    profile: Profiling, tmp_path: Path
) -> None:
    page = tmp_path / "plan.html"
    done = profile("--explain", "--html", str(page), "-c", PLANNED)
    assert done.code == 0, done.err
    opened = (
        "for (const one of document.querySelectorAll('details')) { one.open = true; one.fill(); }"
    )
    page.write_text(page.read_text().replace("</body>", f"<script>{opened}</script></body>"))
    command = [
        str(CHROMIUM),
        *ARGUMENTS,
        *("--headless=new", "--disable-gpu", f"--user-data-dir={tmp_path / 'chromium'}"),
        *("--enable-logging=stderr", "--dump-dom", page.as_uri()),
    ]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert [line for line in shown.stderr.splitlines() if "CONSOLE" in line] == []
    diagram = shown.stdout[shown.stdout.index("<svg") : shown.stdout.index("</svg>")]
    nodes = diagram.count("<g ")
    assert nodes == shown.stdout.count("<li>") >= 4
    assert diagram.count("<path") == nodes - 1
    assert "pg_attribute" in diagram
    # Nobody can estimate the condition on attnum, so far more rows are expected than there are.
    assert "fewer rows than estimated" in diagram
