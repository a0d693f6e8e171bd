"""Programs that jobs run, such as Nextclade: find them, run them, and explain why they failed."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from aspen.workflows.steps import StepError

_VERSION_S = 120  # pangolin takes 10 s on a busy machine
_VERSION = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?")
_LAST = 5  # lines
_SHOWN = 300  # characters
_SET_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG


def say(message: str) -> None:
    """Write a line to the step's log, which is standard error."""
    sys.stderr.write(f"{message}\n")
    sys.stderr.flush()


def named(names: Sequence[str], most: int = 5) -> str:
    """Return names as a list for people, shortened if there are more than ``most``."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f", and {more} more" if more > 0 else "")


@dataclass(frozen=True)
class Version:
    """The version of a program, as it printed it."""

    text: str  # such as 2.14.0
    major: int
    minor: int

    @classmethod
    def find(cls, printed: str) -> Version | None:
        """Return the first version in a text."""
        found = _VERSION.search(printed)
        return found and cls(found[0], int(found[1]), int(found[2]))


@dataclass(frozen=True)
class Program:
    """A program on the worker's PATH.

    Attributes:
        source: A sentence that says how to get it.
    """

    name: str
    source: str

    def find(self) -> Path:
        """Return its path.

        Raises:
            StepError: It is not on the PATH.
        """
        found = shutil.which(self.name)
        if not found:
            raise StepError(
                f"The program {self.name} is not on the worker's PATH; no sample was changed. "
                f"{self.source}"
            )
        return Path(found)

    def ask(self, *words: str) -> str:
        """Return its answer to an option such as ``--version``.

        Raises:
            StepError: It is missing, or does not answer.
        """
        path = self.find()
        try:
            done = _run_briefly([str(path), *words])
        except subprocess.TimeoutExpired as error:
            raise StepError(
                f"{path} did not answer {' '.join(words)} within {_VERSION_S} s; "
                "no sample was changed."
            ) from error
        except OSError as error:
            raise StepError(f"{path} cannot be started: {error}. No sample was changed.") from error
        if done.returncode:
            raise StepError(
                f"{path} {' '.join(words)} {_end(done.returncode)}: {_last(done.stdout)}; "
                "no sample was changed."
            )
        return done.stdout.strip()


def _run_briefly(words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - a program that the operator installed
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=_VERSION_S,
        check=False,
        text=True,
        errors="replace",
    )


def run(
    words: Sequence[str | Path], log: Path, *, title: str, seconds: float | None = None
) -> None:
    """Run a program to its end, in the folder of its log.

    It dies with this process, whatever ends it. Its output goes to the log, and from there to the
    step's.

    Raises:
        StepError: It failed, or took longer than ``seconds``; the message begins with ``title``.
    """
    try:
        code = _exit_code(words, log, seconds)
    except subprocess.TimeoutExpired as error:
        raise StepError(f"{title} took longer than {seconds:.0f} s.") from error
    except OSError as error:
        raise StepError(f"{title} could not be started: {error}.") from error
    printed = log.read_text(errors="replace")
    if printed:
        say(printed.rstrip())
    if code:
        raise StepError(f"{title} {_end(code)}: {_last(printed)}")


def _exit_code(words: Sequence[str | Path], log: Path, seconds: float | None) -> int:
    with (
        log.open("wb") as output,
        # A program's own children stay in the step's process group, which the engine ends.
        subprocess.Popen(  # noqa: S603 - a program that the operator installed
            [str(word) for word in words],
            cwd=log.parent,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=_dying_with(os.getpid()),  # noqa: PLW1509 - steps have one thread
        ) as process,
    ):
        try:
            return process.wait(seconds)
        finally:
            process.kill()


def _dying_with(parent: int) -> Callable[[], None] | None:
    """Return a function for a child that makes the system end it together with its parent."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def prepare() -> None:
        prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
        if os.getppid() != parent:  # it died in between
            os.kill(os.getpid(), signal.SIGKILL)

    return prepare


def _end(code: int) -> str:
    return f"failed with exit code {code}" if code > 0 else f"was stopped by signal {-code}"


def _last(printed: str) -> str:
    """Return the last lines of a program's output, or a remark if there are none."""
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    return " / ".join(lines[-_LAST:])[-_SHOWN:] or "it printed nothing"
