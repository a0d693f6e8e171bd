"""One bulk run as it enters the journal: before it asks, writes and commits, and after."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from aspencli import __version__
from aspencli.errors import AspenError, BadInputError, RefusedError
from aspencli.services.bulk import Assessment
from aspencli.services.journal import Journal
from aspencli.services.machine import this_process, this_user
from aspencli.services.runs import Counts, InputFile, Outcome, Place
from db.errors import OutcomeUnknownError
from db.hosts import first_text
from db.transactions import DatabaseIdentity


@dataclass(frozen=True)
class Subject:
    """What a run is about.

    Attributes:
        command: The command, without its options.
        target: The target's label.
        place: Its database.
        group_id: The group whose rows are changed; None where the run is bound to none.
        group: Its name.
        file: What was read.
        counts: What the plan is.
        undo_of: The run that it takes back, if any.
        via: How the target is reached: ``db`` or ``api``.
        api: The address that ``--api`` or ``ASPEN_API`` named, if any.
    """

    command: str
    target: str
    place: Place
    group_id: int | None
    group: str | None
    file: InputFile
    counts: Counts
    undo_of: str | None = None
    via: str = "db"
    api: str | None = None


def place_of(url: URL, identity: DatabaseIdentity, api: str | None = None) -> Place:
    """Return a database as the history tells it from others.

    Args:
        url: Its address.
        identity: What it is.
        api: The address of the target's API, if that is known.
    """
    host = url.host or first_text(url.query.get("host")) or None
    return Place(host, url.port, url.database, identity.system, identity.oid, beside=api)


def counts_of(assessment: Assessment) -> Counts:
    """What a run is going to do, in rows."""
    plan = assessment.plan
    return Counts(plan.rows, plan.to_change, plan.already, plan.left_out, assessment.problems)


class Recording:
    """One run in the journal; it begins with ``with``, and its end is told at the end of the block.

    An error that leaves the block decides the outcome, unless `ended` has told it before.

    Args:
        journal: Where it is kept.
        subject: What the run is about.
        warn: Is told why the end could not be kept, if so; the run itself is not touched by that.
        resumes: The run that is gone on with; None where a new one begins.

    Attributes:
        id: The run's id.

    Raises:
        AspenError: The journal cannot be written; nothing was changed.
    """

    def __init__(
        self,
        journal: Journal,
        subject: Subject,
        warn: Callable[[str], None],
        resumes: str | None = None,
    ):
        self.id = resumes or _new_id()
        self._resumes = resumes is not None
        self._journal = journal
        self._subject = subject
        self._warn = warn
        self._began = time.monotonic()
        self._stage = "planned"
        self._begun: Callable[[], bool] = lambda: True  # of a run that is resumed

    def __enter__(self) -> Self:
        if self._resumes:
            self._tell("resumed", begins=False, **self._process())
            self._stage = "sending"
            return self
        # Another run may have begun at this very moment.
        while not self._tell("started", begins=True, **self._start()):
            self.id = _new_id()
        return self

    def _start(self) -> dict[str, object]:
        subject = self._subject
        return {
            **self._process(),
            "command": subject.command,
            "target": subject.target,
            "database": asdict(subject.place),
            "group": {"id": subject.group_id, "name": subject.group},
            "file": asdict(subject.file),
            "counts": asdict(subject.counts),
            "undo_of": subject.undo_of,
            "via": subject.via,
            "api": subject.api,
        }

    @staticmethod
    def _process() -> dict[str, object]:
        process = this_process()
        return {
            "user": this_user(),
            "host": process.host,
            "pid": process.pid,
            "process_started": process.started,
            "version": __version__,
        }

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self.ended(self._outcome_of(error), _words(error))

    def writing(self, transaction: int) -> None:
        """Tell which transaction is about to write.

        Raises:
            AspenError: The journal cannot be written; nothing was changed.
        """
        self._tell("writing", transaction=transaction)
        self._stage, self._transaction = "writing", transaction

    def committing(self, undo_file: Path) -> None:
        """Tell that all is written but the commit.

        Raises:
            AspenError: The journal cannot be written; nothing was changed.
        """
        counts = asdict(self._subject.counts)
        undo = str(undo_file.absolute())
        self._tell("committing", transaction=self._transaction, counts=counts, undo_file=undo)
        self._stage = "committing"

    def sending(self, undo_file: Path, renames: Path, begun: Callable[[], bool]) -> None:
        """Tell that requests are about to be sent, each of which is written by itself.

        Args:
            undo_file: What takes them back.
            renames: The journal that tells how far they came.
            begun: Returns True once a request was sent, or was about to be.

        Raises:
            AspenError: The journal cannot be written; nothing was changed.
        """
        self._tell("sending", undo_file=str(undo_file.absolute()), renames=str(renames))
        self._stage, self._begun = "sending", begun

    def ended(self, outcome: Outcome, message: str | None = None) -> None:
        """Tell how it ended, unless that has been told; only warn where it cannot be kept."""
        if self._stage == "ended":
            return
        self._stage = "ended"
        seconds = round(time.monotonic() - self._began, 3)
        try:
            self._append("ended", outcome=outcome.value, seconds=seconds, message=message)
        except OSError as error:
            self._warn(
                f"the journal {self._journal.path} cannot be written: {error.strerror}; "
                f"it does not tell that run {self.id} ended: {outcome.value}."
            )

    def _outcome_of(self, error: BaseException) -> Outcome:
        if self._stage == "sending":
            return Outcome.UNFINISHED if self._begun() else Outcome.ROLLED_BACK
        if isinstance(error.__cause__, OutcomeUnknownError):
            return Outcome.UNKNOWN
        if self._stage == "planned" and isinstance(error, BadInputError):
            return Outcome.REFUSED
        if self._stage == "planned" and isinstance(error, RefusedError):
            return Outcome.DECLINED
        known = isinstance(error, (AspenError, DBAPIError, KeyboardInterrupt))
        # Once the commit may have been sent, a bug tells nothing of what became of it.
        return Outcome.ROLLED_BACK if known or self._stage != "committing" else Outcome.UNKNOWN

    def _tell(self, event: str, *, begins: bool = False, **facts: object) -> bool:
        try:
            return self._append(event, begins=begins, **facts)
        except OSError as error:
            raise AspenError(
                f"the journal {self._journal.path} cannot be written: {error.strerror}; "
                "nothing was changed",
                hint="Make room or mend permissions there, or set ASPEN_HOME to another folder.",
            ) from error

    def _append(self, event: str, *, begins: bool = False, **facts: object) -> bool:
        at = dt.datetime.now(dt.UTC).isoformat()
        return self._journal.append(
            {"event": event, "run": self.id, "at": at, **facts}, begins=begins
        )


def _new_id() -> str:
    now = dt.datetime.now(dt.UTC)
    # The fraction of the second, in steps of 15 microseconds: sorted by time to the last digit.
    return f"{now:%Y%m%d-%H%M%S}-{now.microsecond * 0x10000 // 1_000_000:04x}"


def _words(error: BaseException) -> str:
    """What went wrong, in one line; never a statement or a row."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, DBAPIError):
        return str(error.orig).strip().partition("\n")[0]
    return error.message if isinstance(error, AspenError) else type(error).__name__
