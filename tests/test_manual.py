"""The man pages, as they are in the repository and in the wheel."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from aspencli.cli.main import ENTRIES
from docs.manual import FOLDER, pages

PAGES = sorted(FOLDER.glob("*.1"))


def test_man_pages_are_current() -> None:
    found = {path.stem: path.read_text(encoding="utf-8") for path in PAGES}
    assert found == pages(), "run: make docs"


def test_program_and_every_group_has_a_page() -> None:
    assert {path.stem for path in PAGES} == {
        "aspencli",
        *(f"aspencli-{entry.name}" for entry in ENTRIES),
    }


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.stem))
def test_page_is_rendered_without_warnings(path: Path) -> None:
    checks = {
        "man": ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", str(path)],
        "mandoc": ["mandoc", "-Tlint", "-W", "warning", str(path)],
    }
    there = {name: words for name, words in checks.items() if shutil.which(name)}
    if not there:
        pytest.skip("neither man nor mandoc is installed")
    for name, words in there.items():
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), name
        assert name == "man" or done.stdout == ""


def test_page_shows_text_as_it_is() -> None:
    if not shutil.which("man"):
        pytest.skip("man is not installed")
    done = subprocess.run(
        ["man", "-E", "ascii", "-l", str(FOLDER / "aspencli-samples.1")],
        env={"PATH": "/usr/bin:/bin", "MANWIDTH": "200", "LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=True,
    )
    shown = done.stdout.replace("\b", "")
    assert "aspencli samples list --group CZI --collected-after 2023-01-01" in shown
    assert "samples update-public-ids" in shown
