"""The pictures in the documentation show what their commands show today."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.screens.drawing import draw, text_of, title_of
from tests.screens.scenes import FOLDER, SCENES, Stage, is_current, lasting, picture, playable
from tests.screens.terminal import WIDTH, screen
from tests.site.reading import document, documents

PICTURES = sorted(FOLDER.glob("*.svg"))
_LARGEST = 50_000  # bytes; the page that shows a picture should load at once


def test_every_scene_has_a_picture_that_a_page_shows() -> None:
    assert {path.stem for path in PICTURES} == set(SCENES)
    shown = {
        link.rpartition("/")[2]: text
        for page in documents().values()
        for link, text in document(page).pictures.items()
    }
    assert {path.name for path in PICTURES} <= shown.keys()


@pytest.mark.parametrize("name", SCENES)
def test_picture_shows_what_its_commands_show_today(name: str, running: Stage) -> None:
    if name not in playable():
        pytest.skip("a part of the local deployment is not installed: make workflows")
    now = picture(running, SCENES[name])
    kept = (FOLDER / f"{name}.svg").read_text("utf-8")
    assert lasting(text_of(kept)) == lasting(text_of(now)), "make screens draws it"
    assert is_current(kept, now)
    assert title_of(kept) == SCENES[name].title


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.stem)
def test_picture_is_small_and_has_nothing_of_this_machine(path: Path) -> None:
    text = path.read_text("utf-8")
    assert len(text) < _LARGEST
    assert not re.search(r"/tmp|/root|/dev/shm|/work|aspen-screens|@font-face|href", text)
    assert max(map(len, text_of(text))) <= WIDTH
    ET.fromstring(text)


def test_screen_has_what_remains_of_a_progress_bar() -> None:
    shown = "one\r\n\x1b[?25l10 %\r\x1b[2K90 %\r\n\x1b[?25h\x1b[1A\x1b[2Kdone\r\ntwo\r\n"
    assert screen(shown) == ["one", "done", "two"]


def test_picture_keeps_text_and_colors_apart() -> None:
    lines = ["\x1b[1mBold\x1b[0m <plain> & more", "", "x" * (WIDTH + 2), "\x1b[38;5;28mok\x1b[0m"]
    drawn = draw("A & B", lines)
    assert title_of(drawn) == "A & B"
    assert text_of(drawn) == ["Bold <plain> & more", "", "x" * WIDTH, "xx", "ok"]
    assert 'font-weight="bold">Bold<' in drawn


def test_only_times_make_no_other_picture() -> None:
    one, two = (
        draw("x", [f"done in {seconds} s", words])
        for seconds, words in ((1.5, "ok"), (22.75, "ok"))
    )
    assert is_current(one, two)
    assert not is_current(one, draw("x", ["done in 1.5 s", "failed"]))
