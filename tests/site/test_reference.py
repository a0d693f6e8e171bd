"""The command reference: a page for each group, and an index of all commands."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from aspencli.cli.main import command
from docs import reference
from tests.site.reading import document


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder that the reference is written to."""
    monkeypatch.setattr(reference, "FOLDER", tmp_path)
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["docs.reference", *words])
    return reference.main()


def test_index_links_to_the_section_of_each_command() -> None:
    pages = {name: document(text) for name, text in reference.render().items()}
    links = {link.partition("#")[::2] for link in pages[reference.INDEX].links}
    assert all(anchor in pages[page].anchors for page, anchor in links)
    root = command()
    words = (
        path
        for path, found in reference.walk(root, root.context_class(root), ("aspencli",))
        if not hasattr(found, "list_commands")
    )
    linked = {anchor for _page, anchor in links} | pages[reference.INDEX].anchors
    assert {"-".join(path) for path in words} <= linked


def test_index_has_a_heading_for_each_group(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch)
    groups = {path.stem for path in (folder / "commands").iterdir()}
    index = (folder / reference.INDEX).read_text()
    assert groups <= set(re.findall("^## aspencli (.+)$", index, re.MULTILINE))
    assert {"db", "samples", "phylo-runs"} <= groups


def test_page_of_a_removed_group_is_removed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "commands").mkdir()
    (folder / "commands" / "gone.md").write_text("# aspencli gone\n")
    run(monkeypatch)
    assert not (folder / "commands" / "gone.md").exists()
    assert run(monkeypatch, "--check") == 0


def test_check_names_pages_that_differ(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch)
    (folder / "commands" / "db.md").write_text("# old\n")
    (folder / "commands" / "gone.md").write_text("# aspencli gone\n")
    assert run(monkeypatch, "--check") == 1
    assert capsys.readouterr().err == ("Out of date: db.md, gone.md. Run: make docs\n")
    assert (folder / "commands" / "db.md").read_text() == "# old\n"
