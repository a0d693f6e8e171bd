"""A console on a pseudo-terminal, driven the way a user drives it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pexpect

from tests import zygote

DRIVER = Path(__file__).with_name("driver.py")
_ESCAPES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07]*\x07|[=>()][B0]?)")
_COLOUR = r"(?:\x1b\[[\d;]*m)*"
_TIMEOUT_S = 120


class Terminal:
    """A console at its prompt.

    Args:
        address: The database's address.
        options: Additional options of the driver.
        env: Additional environment variables.
        command: The command to start instead of the driver on that address.
    """

    def __init__(
        self,
        address: str,
        *options: str,
        env: Mapping[str, str] | None = None,
        command: Sequence[str] = (),
    ):
        self._number = 1
        self.seen = ""
        script, *words = [*(command or [str(DRIVER), address]), *options]
        module, *words = words if script == "-m" else [script, *words]
        self._child: Any = zygote.at_terminal(
            words,
            module=module,
            env={
                **os.environ,
                "TERM": "xterm-256color",
                "PROMPT_TOOLKIT_NO_CPR": "1",  # nothing here reports the cursor position
                **(env or {}),
            },
            dimensions=(50, 240),
            encoding="utf-8",
            timeout=_TIMEOUT_S,
        )
        self._child.delaybeforesend = None

    def __enter__(self) -> Self:
        self.banner = self.until_prompt()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None and self._child.isalive():
            self.type("exit\r")
            self.end()  # a normal exit, so that coverage is saved
        self._child.close(force=True)

    @property
    def pid(self) -> int:
        return int(self._child.pid)

    def until_prompt(self) -> str:
        """Return the output up to the next prompt."""
        return self.until(rf"In \[{_COLOUR}{self._number}{_COLOUR}\]:")

    def until(self, pattern: str) -> str:
        """Return the output up to a pattern, without colors and cursor movements."""
        self._child.expect(pattern)
        raw = self._child.before + self._child.after
        self.seen += raw
        return _ESCAPES.sub("", raw).replace("\r", "")

    def run(self, code: str) -> str:
        """Run a cell; return the output from the end of the input to the next prompt."""
        self.enter(code)
        return self.next_prompt()

    def next_prompt(self) -> str:
        """Return the output from the end of the input to the prompt after it."""
        self._number += 1
        return self.until_prompt()

    def enter(self, code: str) -> None:
        """Type a cell and press Enter."""
        self._child.send(code)
        self._child.expect_exact(code[-1:])
        self._child.send("\r")

    def type(self, keys: str) -> None:
        """Press keys."""
        self._child.send(keys)

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self._child.sendintr()

    def leave(self) -> tuple[int, str]:
        """Type ``exit``; return the exit code and the last output."""
        self.enter("exit")
        return self.end()

    def end(self) -> tuple[int, str]:
        """Wait for the end; return the exit code and the last output."""
        self._child.expect(pexpect.EOF)
        last = _ESCAPES.sub("", self._child.before).replace("\r", "")
        self._child.wait()
        return int(self._child.exitstatus), last
