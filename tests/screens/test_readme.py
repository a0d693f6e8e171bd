"""The README: its commands are run, and its output is what they show today."""

from __future__ import annotations

import os
from pathlib import Path

from tests.guides.session import replayed, steady
from tests.screens.scenes import Stage

README = Path(__file__).parents[2] / "README.md"
REWRITE = os.environ.get("ASPEN_REWRITE_GUIDES")  # read here, because tests have no such variables


def test_readme_matches_command_output(running: Stage) -> None:
    text = README.read_text(encoding="utf-8")
    now = replayed(text, running.folder, running.environment, running.plain)
    if REWRITE:
        README.write_text(now, encoding="utf-8")
        return
    assert steady(now) == steady(text), "make guides writes it anew"
    assert now.count("    $ aspencli ") >= 5
