"""Ctrl-C and SIGTERM: when they stop the program, and when it is too late for that."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class TerminatedError(KeyboardInterrupt):
    """The process was asked to end (SIGTERM); it cleans up as after Ctrl-C."""


def obey_sigterm() -> None:
    """Let SIGTERM unwind the program like Ctrl-C, so that transactions are rolled back."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise TerminatedError

    signal.signal(signal.SIGTERM, stop)


class Shield:
    """From `raise_shield` to the end of the ``with`` block, interrupts are noted and not obeyed.

    Raised just before a commit, it makes sure that what was written is also told.

    Attributes:
        late: Whether an interrupt came while the shield was up.
    """

    def __init__(self) -> None:
        self.late = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def raise_shield(self) -> None:
        """Note interrupts from now on."""

        def note(_number: int, _frame: FrameType | None) -> None:
            self.late = True

        self._before = {number: signal.signal(number, note) for number in _SIGNALS}
