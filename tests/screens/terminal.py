"""Commands on a terminal, and the lines that are on the screen at the end."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import pexpect

WIDTH = 100
_TIMEOUT_S = 120
# The controls that the program's progress bars use.
_CONTROL = re.compile(r"(\r\n|\n|\r|\x1b\[2K|\x1b\[\d*A|\x1b\[\?25[lh])")


def typed(
    command: str, folder: Path, environment: Mapping[str, str], answer: str | None = None
) -> list[str]:
    """Return the lines that a command leaves on a terminal, with their colors.

    Args:
        command: The command for the shell.
        folder: Its working folder.
        environment: Its environment.
        answer: What to type where it asks.
    """
    child = pexpect.spawn(
        shutil.which("sh") or "/bin/sh",
        ["-c", command],
        env={**environment, "TERM": "xterm-256color"},
        cwd=str(folder),
        dimensions=(60, WIDTH),
        encoding="utf-8",
        timeout=_TIMEOUT_S,
    )
    try:
        shown = ""
        if answer is not None:
            child.expect_exact("[y/N]")
            shown = f"{child.before}{child.after}"
            child.sendline(answer)
        child.expect(pexpect.EOF)
        shown += str(child.before)
    finally:
        child.close(force=True)
    return screen(shown)


def screen(shown: str) -> list[str]:
    """Return the lines of a screen after everything that a program has sent to it."""
    lines, row = [""], 0
    returned = False
    for part in _CONTROL.split(shown):
        if part in {"\r\n", "\n"}:
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif part == "\r":
            returned = True
            continue
        elif part == "\x1b[2K":
            lines[row] = ""
        elif part.endswith("A") and _CONTROL.fullmatch(part):
            row = max(0, row - int(part[2:-1] or 1))
        elif part and not _CONTROL.fullmatch(part):
            lines[row] = part if returned else lines[row] + part
        else:
            continue
        returned = False
    while lines and not lines[-1]:
        lines.pop()
    return lines
