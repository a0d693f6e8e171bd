"""The built site: links, anchors, and what its pages load."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.site.pages import sources
from tests.site.reading import (
    References,
    Structure,
    article,
    documents,
    pages,
    rendered,
)

_REMOTE = re.compile(r"(?:[a-z]+:)?//|mailto:")
_LOADED_BY_CSS = re.compile(r"url\(([^)]+)\)|@import +([^;]+)")


@pytest.fixture(scope="module")
def references(site: Path) -> dict[Path, References]:
    return {path: References.of(text) for path, text in pages(site)}


def test_internal_links_lead_to_pages_and_anchors(references: dict[Path, References]) -> None:
    broken = []
    for page, found in references.items():
        for link in found.links:
            if _REMOTE.match(link):
                continue
            place, _, anchor = link.partition("#")
            target = (page.parent / place).resolve() if place else page
            if target not in references:
                broken.append(f"{page}: {link}: no such page")
            elif anchor and anchor not in references[target].anchors:
                broken.append(f"{page}: {link}: no such anchor")
    assert broken == []
    assert sum(len(found.links) for found in references.values()) > 1000


def test_pages_load_only_files_of_the_site(site: Path, references: dict[Path, References]) -> None:
    bad = [
        f"{page}: {loaded}"
        for page, found in references.items()
        for loaded in found.loaded
        if _REMOTE.match(loaded)
        or not (page.parent / loaded).resolve().is_relative_to(site)
        or not (page.parent / loaded).exists()
    ]
    bad += [
        f"{sheet}: {found}"
        for sheet in site.rglob("*.css")
        for found in _LOADED_BY_CSS.findall(sheet.read_text("utf-8"))
        if _REMOTE.match("".join(found).strip("'\""))
    ]
    assert bad == []


def test_pages_show_what_github_shows(site: Path) -> None:
    places = sources()
    for path, text in documents().items():
        page = (site / places[path]).with_suffix(".html").read_text("utf-8")
        assert Structure.of(article(page)) == Structure.of(rendered(text)), path


def test_site_has_no_path_of_this_machine(site: Path) -> None:
    folder = str(Path(__file__).parents[2])
    assert [page for page, text in pages(site) if folder in text] == []
