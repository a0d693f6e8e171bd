"""The commands in a guide, and the output that they show.

A block that is called ```` ```python slow.py ```` or ```` ```csv people.csv ```` is a file of that
name. In a block whose first line is ``    $ command``, the lines up to the next command are its
output on a terminal of 96 columns.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pexpect

PROFILING = Path(__file__).parents[2] / "docs" / "guides" / "profiling.md"
_WIDTH = 96  # on a wider terminal, the width of the figures decides which columns are shown
_INDENT, _PROMPT = "    ", "    $ "
_FILE = re.compile(r"```(?:python|csv) (\S+\.(?:py|csv))\n(.*?)```\n", re.DOTALL)
_SESSION = re.compile(r"(?:^    \$ .*\n(?:^    (?!\$ ).*\n)*)+", re.MULTILINE)
_PARTS = re.compile(r"^(?:(?:Python|database|fetching|waiting|commit)[a-z ]* [\d,.]+ ms(?:, )?)+$")
_MOVING = (
    (re.compile(r"\b(auth0\||org_)\w+"), r"\1ID"),
    (re.compile(r"^Id +\d+$"), "Id N"),  # people of a file are onboarded several at a time
    (re.compile(r"\d{4}-\d\d-\d\dT[\d:+.]+"), "MOMENT"),
    (re.compile(r"\b\d[\d.]* (?:kB|MB|bytes)(?=$|[ ;])"), "SIZE"),
    (
        re.compile(r"(?<![\d.,])\d[\d,]* (?=s$|of \d+ statements|of \d+ connections)"),
        "N ",
    ),
    (re.compile(r"(?<=of )\d+(?= statements| connections)"), "N"),
    (re.compile(r"\d[\d,]*\.\d+"), "N"),  # times
    (re.compile(r"\b\d{2,} s\b|(?<=\()\d+ s(?=\))"), "N s"),  # of 10 s or more, and waits
    (re.compile(r"(?<=transaction ID age: )\d[\d,]*"), "N"),
    (re.compile(r"\b\d{1,3}%"), "N%"),
    (re.compile(r"^(?:better|worse|same) "), "same "),
    # Line numbers in the service change with its source.
    (re.compile(r"\b(admission|authz|streaming)\.py:\d+"), r"\1.py:N"),
    # Column widths depend on the numbers in the columns.
    (re.compile(r"(?:^|(?<=  ))(SELECT|UPDATE|INSERT|DELETE|WITH) .*$"), r"\1 …"),
    (re.compile(r"\S*…"), "…"),
    (re.compile(r" {2,}"), "  "),
)
_TIMEOUT_S = 120


def replayed(
    text: str,
    folder: Path,
    environment: Mapping[str, str],
    show: Callable[[str], str] | None = None,
) -> str:
    """Return the guide with the current output of its commands.

    Args:
        text: The guide.
        folder: The folder for its files and commands; emptied for each block of commands.
        environment: The variables that name the database.
        show: Returns the output of a command, if it is not run in the environment.
    """
    show = show or _shower(folder, environment)
    files: list[tuple[int, str, str]] = [
        (found.end(), found[1], found[2]) for found in _FILE.finditer(text)
    ]

    def again(found: re.Match[str]) -> str:
        for end, name, content in files:
            if end <= found.start():
                (folder / name).write_text(content)
        return "".join(_replayed(found[0].splitlines(), show))

    return _SESSION.sub(again, text)


def _replayed(lines: list[str], show: Callable[[str], str]) -> Iterator[str]:
    for line in lines:
        if line.startswith(_PROMPT):
            yield line + "\n"
            for shown in show(line.removeprefix(_PROMPT)).splitlines():
                if shown.strip():  # an empty line would end the block
                    yield f"{_INDENT}{shown}".rstrip() + "\n"


def _shower(folder: Path, environment: Mapping[str, str]) -> Callable[[str], str]:
    programs = Path(sys.executable).parent
    kept = {name: os.environ[name] for name in ("HOME", "LANG", "TZ") if name in os.environ}
    surroundings = {
        **kept,
        **environment,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "TERM": "dumb",
        "NO_COLOR": "1",
    }

    def show(command: str) -> str:
        child = pexpect.spawn(
            shutil.which("sh") or "/bin/sh",
            ["-c", command],
            env=surroundings,
            cwd=str(folder),
            dimensions=(50, _WIDTH),
            encoding="utf-8",
            timeout=_TIMEOUT_S,
        )
        try:
            child.expect(pexpect.EOF)
        finally:
            child.close(force=True)
        return str(child.before).replace("\r\n", "\n")

    return show


def steady(text: str) -> list[str]:
    """Return the lines of a guide, sorted, without anything that varies from run to run."""
    lines = []
    for line in text.splitlines():
        shown = _PARTS.sub("(where the time went)", line.strip()) if line.startswith(" ") else line
        for pattern, mask in _MOVING:
            shown = pattern.sub(mask, shown) if line.startswith(_INDENT) else shown
        lines.append(shown.rstrip())
    return sorted(lines)
