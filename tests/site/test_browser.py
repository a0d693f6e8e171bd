"""The site in a browser, opened from the disk: search, two color schemes, and a phone's width."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browsing import PipedBrowser, PipedPage, needs_chromium

pytestmark = needs_chromium
_LOCAL = ("file:", "data:", "about:", "blob:")
_DESKTOP, _PHONE = (1280, 900), (360, 740)
_SEARCH = "document.querySelector('.md-search__button').click()"
_BACKGROUND = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
# Code, tables, and screens scroll by themselves.
_WIDER = """
[...document.querySelectorAll("main *")].filter(element => {
  const scrolls = "pre, .md-typeset__scrollwrap, .md-sidebar, svg, img[src*='screens/']"
  if (!element.checkVisibility() || element.closest(scrolls)) return false
  return element.getBoundingClientRect().right > document.documentElement.clientWidth + 1
}).map(element => element.outerHTML.slice(0, 80))
"""
# The search is in a shadow tree.
_FOUND = """
(() => {
  const links = root => [...root.querySelectorAll("*")].flatMap(element => [
    ...(element.shadowRoot ? links(element.shadowRoot) : []),
    ...(element.localName === "a" ? [element.href] : []),
  ])
  return links(document).find(link => link.includes("h=") && link.includes("#aspencli-db-doctor"))
})()
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PipedBrowser]:
    with PipedBrowser(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


def opened(browser: PipedBrowser, file: Path, size: tuple[int, int], scheme: str) -> PipedPage:
    page = browser.page(*size)
    page.ask(
        "Emulation.setEmulatedMedia",
        features=[{"name": "prefers-color-scheme", "value": scheme}],
    )
    page.go(file.as_uri())
    page.wait(f"location.href === {file.as_uri()!r} && document.readyState === 'complete'")
    return page


def test_search_finds_a_command_without_a_network(site: Path, browser: PipedBrowser) -> None:
    page = opened(browser, site / "guides" / "jobs.html", _DESKTOP, "light")
    page.value(_SEARCH)
    page.ask("Input.insertText", text="db doctor")
    link = page.wait(_FOUND)
    page.go(link)
    page.wait("document.title.includes('aspencli') && document.readyState === 'complete'")
    assert page.value("document.querySelector(location.hash) !== null")
    assert page.errors == []
    assert [url for url in page.requests if not url.startswith(_LOCAL)] == []


@pytest.mark.parametrize(("scheme", "bright"), [("light", True), ("dark", False)])
def test_colors_follow_the_system(
    site: Path, browser: PipedBrowser, scheme: str, bright: bool
) -> None:
    page = opened(browser, site / "index.html", _DESKTOP, scheme)
    assert (sum(page.value(_BACKGROUND)[:3]) > 3 * 128) is bright


def test_no_page_is_wider_than_a_phone_or_asks_another_host(
    site: Path, browser: PipedBrowser
) -> None:
    wide = {}
    alike = [
        site / "adr" / "index.html",
        site / "commands" / "index.html",
        site / "commands" / "db.html",
    ]
    for file in [*site.glob("*.html"), *site.glob("guides/*.html"), *alike]:
        page = opened(browser, file, _PHONE, "light")
        if found := page.value(_WIDER):
            wide[file.name] = found
        assert [url for url in page.requests if not url.startswith(_LOCAL)] == [], file
        assert page.errors == [], file
        page.ask("Page.close")
    assert wide == {}
