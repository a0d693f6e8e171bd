"""The documentation as it is in the repository: links, anchors, files, and commands exist."""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Mapping

import pytest

from docs.site.pages import ROOT
from tests.site.reading import Document, document, documents

_REMOTE = re.compile(r"[a-z]+:")
_FILE = re.compile(
    r"(?:\.ci|api|aspencli|benchmarks|db|docs|local|migrations|requirements|scripts|tests|workflows)"
    r"/[\w./-]*\w"
)
_TARGET = re.compile(r"^([a-z][a-z-]*):", re.MULTILINE)
PAGES = documents()
_OTHER = ("docs/adr/", "CHANGELOG.md", "docs/guides/add-an-endpoint.md")
NOW = {path for path in PAGES if not path.startswith(_OTHER)}
"""The pages that describe the present, unlike the past or files that the reader writes."""


@pytest.fixture(scope="module")
def read() -> Mapping[str, Document]:
    return {path: document(text) for path, text in PAGES.items()}


def test_links_lead_to_files_and_headings_of_the_repository(read: Mapping[str, Document]) -> None:
    broken = []
    for path, page in read.items():
        for link in [*page.links, *page.pictures]:
            if _REMOTE.match(link):
                continue
            file, _, anchor = link.partition("#")
            target = posixpath.normpath(posixpath.join(posixpath.dirname(path), file))
            target = target if file else path
            if not (ROOT / target).exists():
                broken.append(f"{path}: {link}: no such file")
            elif anchor and anchor not in read[target].anchors:
                broken.append(f"{path}: {link}: no such heading")
    assert broken == []


def test_pictures_have_a_text_for_those_who_do_not_see_them(read: Mapping[str, Document]) -> None:
    assert [
        f"{path}: {picture}"
        for path, page in read.items()
        for picture, text in page.pictures.items()
        if len(text.split()) < 3
    ] == []


def test_files_that_pages_mention_exist(read: Mapping[str, Document]) -> None:
    assert [
        f"{path}: {name}"
        for path in NOW
        for code in read[path].code
        for name in _FILE.findall(code)
        if code == name and not (ROOT / name).exists()
    ] == []


def test_make_targets_that_pages_mention_exist(read: Mapping[str, Document]) -> None:
    targets = set(_TARGET.findall((ROOT / "Makefile").read_text()))
    mentioned = {
        (path, word)
        for path in NOW
        for code in read[path].code
        if re.match(r"(?:\$ )?make [a-z]", code)
        for word in shlex.split(code.removeprefix("$ "), comments=True)[1:]
        if re.fullmatch("[a-z][a-z-]*", word)
    }
    assert ("README.md", "demo") in mentioned
    assert [f"{path}: make {word}" for path, word in sorted(mentioned) if word not in targets] == []
