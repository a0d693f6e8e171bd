"""Work that Ctrl-C and SIGTERM must not interrupt, and the signals of child processes."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn, Self

if TYPE_CHECKING:
    from pathlib import Path
    from subprocess import Popen

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_OF_TERMINAL = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)
_SIGNALED = 128  # added to the number of the signal, as shells do
_AFTER_S = 0.05


class TerminatedError(KeyboardInterrupt):
    """A request to terminate (SIGTERM), which unwinds the program as Ctrl-C does."""


def deliver_lost_interrupts() -> None:
    """Redeliver interrupts that were raised where Python ignores exceptions.

    In ``__del__`` and garbage collection callbacks, Python prints exceptions as "Exception
    ignored in ..." and continues.
    """
    otherwise = sys.unraisablehook

    def hook(lost: sys.UnraisableHookArgs) -> None:
        if issubclass(lost.exc_type, KeyboardInterrupt):
            is_term = issubclass(lost.exc_type, TerminatedError)
            number = signal.SIGTERM if is_term else signal.SIGINT
            # A real signal wakes blocking calls; the delay lets the finalizer end first.
            again = threading.Timer(_AFTER_S, os.kill, (os.getpid(), number))
            again.daemon = True
            again.start()
        else:
            otherwise(lost)

    sys.unraisablehook = hook


class _Recorder:
    """A context manager whose block may record interrupts instead of raising them."""

    def __init__(self) -> None:
        self._noted: int | None = None  # the first one
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _record(self) -> None:
        for number in _SIGNALS:
            handler = signal.getsignal(number)
            if handler != signal.SIG_IGN:  # it is ignored for a shell's background jobs
                self._before[number] = handler
                signal.signal(number, self._note)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._noted = self._noted or number

    def _raise(self, number: int) -> NoReturn:
        handler = self._before.get(number)
        if callable(handler):
            handler(number, None)
        raise KeyboardInterrupt


class Shield(_Recorder):
    """A context manager that only records interrupts from `raise_shield` to the end of the block.

    It protects work that must not be left half done, such as a commit and its report.
    """

    @property
    def late(self) -> bool:
        """Return True if an interrupt came while the shield was up."""
        return self._noted is not None

    def raise_shield(self) -> None:
        """Record interrupts from now on instead of raising them."""
        self._record()

    def check(self) -> None:
        """Raise any interrupt recorded so far; this is the last chance to do so.

        Raises:
            KeyboardInterrupt: An interrupt came; the shield stays up during the cleanup.
        """
        if self._noted is not None:
            self._raise(self._noted)


class Brake(_Recorder):
    """A context manager that records the first interrupt and raises the second.

    It is for work in resumable steps, which can stop after the current step. `tell` is called when
    the first interrupt comes.
    """

    def __init__(self, tell: Callable[[], None]):
        super().__init__()
        self._tell = tell

    def __enter__(self) -> Self:
        self._record()
        return self

    @property
    def pulled(self) -> bool:
        """Return True if an interrupt came."""
        return self._noted is not None

    def obey(self) -> NoReturn:
        """Raise the recorded interrupt now.

        Raises:
            KeyboardInterrupt: Always.
        """
        self.__exit__()
        self._raise(self._noted or signal.SIGINT)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._noted is not None:
            self.obey()
        super()._note(number, frame)
        self._tell()


@contextmanager
def left_to_child() -> Iterator[None]:
    """Leave the terminal's signals to a child process, which gets them as well, for a block."""
    # Not ignored, because the child would inherit that.
    before = {number: signal.signal(number, lambda *_: None) for number in _OF_TERMINAL}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def become(
    program: str | Path, arguments: Sequence[str], environment: Mapping[str, str]
) -> NoReturn:
    """Replace this process with a program, so that signals and the terminal are its own."""
    sys.stdout.flush()
    sys.stderr.flush()
    # Python ignores SIGPIPE, and ignored signals stay ignored across exec.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # A handler of Python's that is called as the program starts would never run.
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    os.execve(program, list(arguments), environment)  # noqa: S606 - no shell is wanted


def exit_code_of(process: Popen[bytes]) -> int:
    """Wait for a child process, and return its exit code, or the one that shells report.

    If this process is terminated, so is the child.
    """
    try:
        status = process.wait()
    except BaseException:  # such as SIGTERM
        process.terminate()
        process.wait()
        raise
    return status if status >= 0 else _SIGNALED - status
