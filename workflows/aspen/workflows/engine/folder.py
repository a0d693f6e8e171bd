"""The folder of a job on the worker's machine: its parameters, its steps' files, and their logs."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aspen.workflows.engine.queue import check_id
from aspen.workflows.steps import DONE_NAME, PARAMETERS_NAME, REASON_NAME

HEADING = "== "
"""The beginning of the lines that the worker writes to a step's log."""
_CANCELLED, _ATTEMPTS, _LOCK, _LOGS, _TEMPORARY = "cancelled", "attempts", "lock", "logs", "tmp"
_STARTED = ": started"
_TRACE = "Traceback (most recent call last):"
_MOMENT = len("2026-01-01 00:00:00.000")
_LAST_LINES = 3
_TAIL_BYTES = 20_000
_LONGEST_REASON = 500
_PRIVATE = 0o700


class JobFolder:
    """The folder of one job.

    Args:
        jobs: The folder of all jobs.
        job_id: The job's ID.

    Raises:
        EngineError: The ID is not valid.
    """

    def __init__(self, jobs: Path, job_id: str):
        check_id(job_id)
        self.path = jobs / job_id
        self.temporary = self.path / _TEMPORARY
        """The folder for temporary files, which is deleted with the others."""

    def make(self, parameters: Mapping[str, Any]) -> None:
        """Create the folder, and write the parameters for the steps."""
        for one in (self.path, self.path / _LOGS, self.temporary):
            one.mkdir(_PRIVATE, parents=True, exist_ok=True)
        _write(self.path / PARAMETERS_NAME, json.dumps(dict(parameters)))

    # Steps

    def log(self, step: str) -> Path:
        """Return the log of a step, which contains all of its attempts."""
        return self.path / _LOGS / f"{step}.log"

    def logs(self) -> list[Path]:
        """Return the logs of the steps that began, in the order in which they did."""
        return sorted((self.path / _LOGS).glob("*.log"), key=_began)

    def note(self, step: str, text: str) -> None:
        """Write a line of the worker's own to a step's log."""
        now = datetime.now(UTC).isoformat(" ", "milliseconds").removesuffix("+00:00")
        with self.log(step).open("a") as log:
            log.write(f"{HEADING}{now} UTC {step}: {text}\n")

    def is_done(self, step: str) -> bool:
        """Return True if a step finished, even if the worker was killed before it learned of it."""
        return (self.path / DONE_NAME / step).exists()

    def clear_step(self, step: str) -> None:
        """Delete the files of a step that was interrupted."""
        shutil.rmtree(self.path / step, ignore_errors=True)

    def reason(self, step: str) -> str:
        """Return the reason that a step gave for its failure; empty if it gave none."""
        try:
            return (self.path / step / REASON_NAME).read_text(errors="replace").strip()
        except OSError:
            return ""

    def last_words(self, step: str) -> str:
        """Return the last lines of a step's log; of an exception, only the line that names it."""
        try:
            with self.log(step).open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - _TAIL_BYTES))
                text = log.read().decode(errors="replace")
        except OSError:
            return ""
        lines = [line.rstrip() for line in text.splitlines() if line.strip()]
        begun = [place for place, line in enumerate(lines) if _is_start(line)]
        said = lines[begun[-1] + 1 :] if begun else lines
        said = [line for line in said if not line.startswith(HEADING)]
        last = _exception(said) or said[-_LAST_LINES:]
        return "; ".join(line.strip() for line in last)[-_LONGEST_REASON:]

    # Attempts

    @property
    def attempts(self) -> int:
        """Return how often the job was started."""
        try:
            return int((self.path / _ATTEMPTS).read_text())
        except (OSError, ValueError):
            return 0

    def begin(self) -> None:
        """Forget the results of an earlier attempt, and count this one."""
        _write(self.path / _ATTEMPTS, str(self.attempts + 1))
        self.clear(keep_results=False)

    def clear(self, *, keep_results: bool = False) -> None:
        """Delete the steps' files, which can be large; logs are kept."""
        kept = {_LOGS, *((DONE_NAME,) if keep_results else ())}
        with contextlib.suppress(OSError):
            for one in self.path.iterdir():
                if one.is_dir() and one.name not in kept:
                    shutil.rmtree(one, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.temporary.mkdir(_PRIVATE, exist_ok=True)

    # Cancellation

    @property
    def cancelled(self) -> str | None:
        """Return why the job was cancelled; None if it was not."""
        try:
            return (self.path / _CANCELLED).read_text()
        except OSError:
            return None

    def cancel(self, why: str) -> None:
        """Ask the worker to end the job."""
        self.path.mkdir(_PRIVATE, parents=True, exist_ok=True)
        _write(self.path / _CANCELLED, why)

    def forget_cancellation(self) -> None:
        """Allow the job to be started again."""
        (self.path / _CANCELLED).unlink(missing_ok=True)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the job's lock while it runs; the system releases it if the worker is killed."""
        self.path.mkdir(_PRIVATE, parents=True, exist_ok=True)
        descriptor = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def wait_until_free(self, seconds: float) -> bool:
        """Wait until no worker runs the job; return False if one still does."""
        deadline = time.monotonic() + seconds
        while self._is_held():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def _is_held(self) -> bool:
        try:
            descriptor = os.open(self.path / _LOCK, os.O_RDWR)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False


def _is_start(line: str) -> bool:
    return line.startswith(HEADING) and _STARTED in line


def _exception(lines: Sequence[str]) -> list[str]:
    """Return the line that names the last exception; none if there was none."""
    traces = [place for place, line in enumerate(lines) if line == _TRACE]
    after = lines[traces[-1] + 1 :] if traces else ()
    return [line for line in after if not line[0].isspace()][:1]


def _began(log: Path) -> tuple[str, str]:
    try:
        with log.open(errors="replace") as file:
            return file.readline()[: len(HEADING) + _MOMENT], log.name
    except OSError:
        return "", log.name


def _write(path: Path, text: str) -> None:
    """Write a file as a whole, so that no reader sees half of it."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
