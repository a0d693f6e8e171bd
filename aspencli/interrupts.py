"""Ctrl-C and SIGTERM: when they stop the program, and when it is too late for that."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self, cast

from aspencli.errors import INTERRUPTED

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Handle

TERMINATED = 143
"""The exit code after SIGTERM (128 + 15), as shells expect it."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_AFTER_S = 0.05

_was_terminated = False  # the command framework makes an exit code of what is raised


class TerminatedError(KeyboardInterrupt):
    """The process was asked to end (SIGTERM); it cleans up as after Ctrl-C."""


def obey_sigterm() -> None:
    """Let SIGTERM unwind the program like Ctrl-C, so that transactions are rolled back."""
    global _was_terminated  # noqa: PLW0603 - a signal is the process's own
    _was_terminated = False
    scheduled: list[Handle] = []

    def stop(_number: int, _frame: FrameType | None) -> None:
        global _was_terminated  # noqa: PLW0603 - same
        _was_terminated = True
        loop = _running_loop()
        if loop is not None and not scheduled:
            scheduled.append(loop.call_soon_threadsafe(_raise_terminated))
            return
        while scheduled:  # a second signal is obeyed at once, and the first no more
            scheduled.pop().cancel()
        raise TerminatedError

    signal.signal(signal.SIGTERM, stop)


def _running_loop() -> AbstractEventLoop | None:
    """Return the event loop of this thread, if one runs.

    An exception that a signal handler raises while a loop calls a compiled protocol, such as
    asyncpg's, ended the process with signal 11. Raised by a callback, it leaves the loop between
    two of them.
    """
    asyncio = sys.modules.get("asyncio")  # a start without it stays one
    running = getattr(asyncio, "get_running_loop", None)  # missing while asyncio is imported
    if running is None:
        return None
    try:
        return cast("AbstractEventLoop", running())
    except RuntimeError:
        return None


def _raise_terminated() -> NoReturn:
    raise TerminatedError


def deliver_lost_interrupts() -> None:
    """Deliver an interrupt again that was raised where Python lets nothing through.

    In ``__del__`` and callbacks of the garbage collection Python prints what is raised as
    "Exception ignored in ...", and goes on.
    """
    otherwise = sys.unraisablehook

    def hook(lost: sys.UnraisableHookArgs) -> None:
        if issubclass(lost.exc_type, KeyboardInterrupt):
            is_term = issubclass(lost.exc_type, TerminatedError)
            number = signal.SIGTERM if is_term else signal.SIGINT
            # A real signal wakes what waits, and a little later it comes after the finalizer.
            again = threading.Timer(_AFTER_S, os.kill, (os.getpid(), number))
            again.daemon = True
            again.start()
        else:
            otherwise(lost)

    sys.unraisablehook = hook


def interrupt_code() -> int:
    """The exit code of a run that a signal ended: 130, or 143 where it was SIGTERM."""
    return TERMINATED if _was_terminated else INTERRUPTED


class Shield:
    """From `raise_shield` to the end of the ``with`` block, interrupts are noted and not obeyed.

    Raised before what must not be left half done, such as a commit and telling of it.
    """

    def __init__(self) -> None:
        self._noted: list[int] = []
        self._before: dict[int, Any] = {}

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

    @property
    def late(self) -> bool:
        """Whether an interrupt came while the shield was up."""
        return bool(self._noted)

    def raise_shield(self) -> None:
        """Note interrupts from now on."""
        for number in _SIGNALS:
            handler = signal.getsignal(number)
            if handler != signal.SIG_IGN:  # as of a shell's background job
                self._before[number] = handler
                signal.signal(number, self._note)

    def check(self) -> None:
        """Obey what has been noted so far: the last moment at which that is possible.

        Raises:
            KeyboardInterrupt: An interrupt came; the shield stays up, to clean up behind it.
        """
        for number in self._noted:
            handler = self._before[number]
            if callable(handler):
                handler(number, None)
            raise KeyboardInterrupt

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._noted.append(number)


class Brake:
    """Within the ``with`` block the first interrupt is noted, and the second one obeyed.

    For work in steps that can be gone on with: it ends after a step.

    Args:
        tell: Is called when the first one comes.
    """

    def __init__(self, tell: Callable[[], None]):
        self._tell = tell
        self._before: dict[int, Any] = {}
        self._noted: int | None = None

    def __enter__(self) -> Self:
        for number in _SIGNALS:
            handler = signal.getsignal(number)
            if handler != signal.SIG_IGN:  # as of a shell's background job
                self._before[number] = handler
                signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._release()

    @property
    def pulled(self) -> bool:
        """Whether an interrupt came."""
        return self._noted is not None

    def obey(self) -> NoReturn:
        """Do now what the interrupt asked for.

        Raises:
            KeyboardInterrupt: Always.
        """
        number = self._noted or signal.SIGINT
        handler = self._before.get(number)
        self._release()
        if callable(handler):
            handler(number, None)
        raise KeyboardInterrupt

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self._noted is not None:
            self.obey()
        self._noted = number
        self._tell()

    def _release(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
