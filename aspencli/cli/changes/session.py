"""Sessions that may write: a reason, a confirmation, and a record of what they ran.

What a session changes is not planned, so it is not a `Change`. On targets that others use, it is in
the history and in the audit trail, with its reason and its statements, as far as they are known.

Sessions that only read load nothing of this but the class.
"""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from aspencli.config import Safety
from aspencli.errors import RefusedError

if TYPE_CHECKING:
    from aspencli.changes.journal import Recording
    from aspencli.changes.runs import Outcome
    from aspencli.changes.statements import StatementLog
    from aspencli.cli.context import AppContext

_VIA = "db"
_UNHEARD = "what other programs wrote is not recorded here"


class WriteSession:
    """A session, which is recorded from the moment it may write.

    Leaving the ``with`` block ends the record; an error says that the session was cut short.

    Args:
        context: The context of the run.
        command: Its name in the history.
        reason: The reason given on the command line, if any.
        hears: False if other programs run the statements, so that they are not known.
        commits: False if whatever is written is rolled back at the end.
    """

    def __init__(
        self,
        context: AppContext,
        command: str,
        reason: str | None,
        *,
        hears: bool = True,
        commits: bool = True,
    ):
        self._context = context
        self._hears, self._commits = hears, commits
        self._command = command
        self._reason = reason
        self._recording: Recording | None = None
        self._log: StatementLog | None = None
        self._message: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        recording, log = self._recording, self._log
        self._recording = self._log = None
        if recording is None or log is None:
            return
        if self._hears:
            self._keep(recording, log)
        if error is None:
            recording.ended(*self._outcome(log))
        recording.__exit__(kind, error, trace)

    def _outcome(self, log: StatementLog) -> tuple[Outcome, str | None]:
        from aspencli.changes.runs import Outcome

        if not self._hears:
            found = f"{self._message}; {_UNHEARD}" if self._message else _UNHEARD
            return Outcome.WRITTEN, found
        if not log.has_written:
            return Outcome.NOTHING, self._message
        return Outcome.WRITTEN if self._commits else Outcome.ROLLED_BACK, self._message

    def allow(self, what: str) -> None:
        """Ask for the reason and the confirmation, and begin the record.

        Args:
            what: The action, as a verb phrase.

        Raises:
            RefusedError: There is no reason, or the session was declined.
            AspenError: It cannot be recorded.
        """
        context = self._context
        if self._recording is not None or not self.is_recorded:
            return context.authorize(what, dry_run=False)
        reason = self._ask_reason(what)
        recording = self._new_recording(reason)
        self._confirm(recording, what)
        from aspencli.changes.statements import StatementLog

        self._log = StatementLog(recording.id)
        self._recording = recording
        return None

    def _confirm(self, recording: Recording, what: str) -> None:
        recording.__enter__()
        try:
            recording.prepare()
            self._context.authorize(what, dry_run=False)
            recording.confirmed()
        except BaseException as error:
            recording.__exit__(type(error), error, error.__traceback__)
            raise

    def _new_recording(self, reason: str) -> Recording:
        from aspencli.changes.journal import Recording, open_journal
        from aspencli.changes.masking import masked_text
        from aspencli.changes.runs import Counts, InputFile, Subject
        from aspencli.cli.changes.execute import place_of_target, signed, witness_of

        context = self._context
        subject = Subject(
            command=self._command,
            target=context.target.label,
            place=place_of_target(context, _VIA),
            group_id=None,
            group=None,
            file=InputFile(),
            counts=Counts(),
            single=True,
            reason=masked_text(reason),
        )
        return Recording(
            open_journal(),
            signed(context, subject),
            context.out.warn,
            proposed=context.run_id,
            witness=witness_of(context),
        )

    @property
    def is_recorded(self) -> bool:
        """Return True if the session is recorded once it may write."""
        return self._context.target.safety is not Safety.LOCAL or self._reason is not None

    def _ask_reason(self, what: str) -> str:
        """Return the reason for a session.

        Raises:
            RefusedError: None was given, and there is no terminal to ask on.
        """
        if self._reason is not None:
            return self._reason
        context = self._context
        if not context.out.interactive:
            raise RefusedError(
                f"A reason is required to {what} on {context.target.title}; nothing was written.",
                hint="Pass --reason TEXT, such as a ticket.",
            )
        reason = context.out.ask(f"Reason to {what} on {context.target.title}:").strip()
        if not reason:
            raise RefusedError("No reason was given; nothing was written.")
        return reason

    @property
    def is_open(self) -> bool:
        """Return True if the session is being recorded."""
        return self._recording is not None

    def heard(self, statement: str, failed: bool = False, *, placeholders: bool = True) -> None:
        """Add a statement to the record, if there is one."""
        if self._recording is not None and self._log is not None:
            self.began()
            self._log.add(statement, failed=failed, placeholders=placeholders)

    def began(self) -> None:
        """Note that from now on, an error does not mean that nothing was changed."""
        if self._recording is not None and self._commits:
            self._recording.changing()

    def ended(self, status: int) -> None:
        """Note the exit code of the session's program."""
        if status:
            self._message = f"exit code {status}"

    def _keep(self, recording: Recording, log: StatementLog) -> None:
        """Add the statements to the record."""
        facts: dict[str, object] = {"count": log.count}
        try:
            facts["sha256"] = log.close()
        except OSError as error:
            out = self._context.out
            out.warn(f"Cannot write the statements of this session to {log.path}: {error}")
        texts = [vars(each) for each in log.statements]
        recording.add({"statements": facts}, {"statements": {**facts, "texts": texts}})
