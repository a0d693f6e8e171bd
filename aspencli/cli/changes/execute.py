"""The one path of every write: plan, show, ask, record, apply, report, and how to undo it."""

from __future__ import annotations

import hashlib
import json
import shlex
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import KW_ONLY, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from typer._click.globals import get_current_context

from aspen.database.errors import NotAllowedError
from aspencli.changes.journal import Recording, Unrecorded, Witness, open_journal, place_of
from aspencli.changes.masking import masked_words
from aspencli.changes.runs import Counts, InputFile, Outcome, Place, Subject, is_same_place
from aspencli.cli.output.console import Output
from aspencli.cli.output.formats import DONE, OUTCOME, PLANNED, Column, Row
from aspencli.errors import AspenError, ConflictError, RefusedError, UncertainError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aspencli.cli.context import AppContext
    from aspencli.cli.output.console import Tick
    from aspencli.config import Target
    from aspencli.reference.remote import Org


_RESULT_OF = dict(zip(PLANNED, DONE, strict=False))
_WORK, _WORKED = PLANNED[:3], DONE[:3]  # the others change nothing
_REASON = "reason"  # the column that says why an item was left out, or failed


@dataclass(eq=False)
class Change(ABC):
    """A planned write, in the steps that `execute` takes."""

    context: AppContext
    what: str  # a verb phrase, for the question
    _: KW_ONLY
    reason: str = ""  # why there is nothing to change; empty if everything is as wanted
    by_name: bool = False  # to require the target's name even if it is not production
    default_yes: bool = False  # to act as if ``--yes`` was given
    has_dry_run: bool = True  # the command has ``--dry-run``, which a refusal then suggests
    target: Target | None = None  # the target of the write, if it is not the selected one
    # the noun for the file on standard input, on which no question can be answered then
    stdin: str = ""

    @property
    @abstractmethod
    def is_empty(self) -> bool:
        """Return True if there is nothing to change."""

    @property
    def is_recorded(self) -> bool:
        """Return True to keep a record in the history."""
        return True

    @abstractmethod
    def subject(self) -> Subject:
        """Return the facts to record in the history."""

    @abstractmethod
    def digest(self) -> str:
        """Return the digest of the plan."""

    @abstractmethod
    def explain(self) -> None:
        """Print what to know about the plan, or refuse it.

        Raises:
            BadInputError: The plan has problems; all of them are listed.
        """

    @abstractmethod
    def show(self) -> None:
        """Print the whole plan as a result, and what it would do if the rows do not say all."""

    def check(self) -> None:  # noqa: B027 - through the API, the plan itself has checked it
        """Check that the user may make the change, for a dry run.

        Raises:
            CredentialsError: If not.
        """

    @abstractmethod
    def preview(self) -> None:
        """Show the beginning of the plan, before the question."""

    @abstractmethod
    def leave(self, recording: Recording) -> None:
        """Report that nothing was changed."""

    @abstractmethod
    def apply(self, recording: Recording) -> None:
        """Carry out the plan, report the result, and say how to undo it."""


def execute(change: Change, *, dry_run: bool) -> None:
    """Carry out a planned write, or only show it.

    The history records the write from before the question until it has ended.

    Raises:
        RefusedError: The write was declined, or there is no terminal to confirm it on.
        AspenError: The history cannot be written; nothing was changed.
    """
    context = change.context
    if dry_run:
        change.explain()
        change.show()
        if change.is_empty:
            context.out.nothing(change.reason)
        else:
            change.check()
        return context.out.dry_run("" if change.is_empty else change.what)
    with _recording(change) as recording:
        change.explain()
        if change.is_empty:
            return change.leave(recording)
        change.preview()
        recording.prepare()
        try:
            context.authorize(
                change.what,
                default_yes=change.default_yes,
                by_name=change.by_name,
                dry_run=change.has_dry_run,
                target=change.target,
                stdin=change.stdin,
            )
        except KeyboardInterrupt:
            if context.out.is_asking:
                recording.ended(Outcome.DECLINED, "interrupted")
            raise
        recording.confirmed()
        return change.apply(recording)


def _recording(change: Change) -> Recording:
    if not change.is_recorded:
        return Unrecorded()
    context = change.context
    subject = replace(signed(context, change.subject()), digest=change.digest())
    return Recording(
        open_journal(),
        subject,
        context.out.warn,
        proposed=context.run_id,
        witness=witness_of(context, change.target),
    )


def witness_of(context: AppContext, target: Target | None = None) -> Witness | None:
    """Return the audit trail for a run on a target, by default the selected one.

    None for the deployment on this machine, which has no trail, unless there is something else to
    record or to say about it.
    """
    chosen = target or context.target
    is_remote = chosen.belongs_to or chosen.audit_bucket or chosen.secret_name
    if context.is_on_laptop and not (is_remote or chosen.is_production or context.uses_aws):
        return None
    from aspencli.cli.changes.audit import RunTrail

    return RunTrail(context, target)


@dataclass(frozen=True)
class SavedFile:
    """The old values of items, saved before they are changed."""

    path: Path
    tell: Callable[[], None]  # tells the operator about it
    undoes: bool = True  # False for a file that only records what was there


@dataclass
class ItemChange(Change):
    """A write whose plan fits in memory: one row per item, in the plan as in the result."""

    columns: tuple[Column, ...]  # of the result, and of the plan unless ``plan_columns`` are given
    plan: Sequence[Row]  # one row per item, with an ``outcome`` that is in `PLANNED`
    # Makes the change, and yields rows for the items of each step as soon as it is done, with an
    # ``outcome`` that is in `DONE`.
    carry_out: Callable[[], Iterable[Sequence[Row]]]
    _: KW_ONLY
    done: str | Callable[[Sequence[Row]], str] = ""  # the message of success
    next: str | Callable[[Sequence[Row]], str] = ""  # what to do next
    single: bool = False  # to show the result with one line per field; the question says it all
    # If the plan has rows where the result is one record.
    plan_columns: tuple[Column, ...] | None = None
    # Columns and rows to show before the question instead of the plan.
    shown: tuple[tuple[Column, ...], Iterable[Row]] | None = None
    # Columns and rows that say more than the plan, shown before it and the question.
    details: tuple[tuple[Column, ...], Iterable[Row]] | None = None
    shows: int = 10  # the maximum number of rows to show before the question
    permitted: Callable[[], None] | None = None  # for a dry run; see `Change.check`
    # Called with the result once it is shown; may raise an error about it.
    ended: Callable[[Sequence[Row]], None] | None = None
    label: str = ""  # of the progress bar
    partial: str = ""  # what was done to the items of a result cut short: ``samples were deleted``
    # Saves the old values for a run, before the change.
    save: Callable[[Recording], SavedFile] | None = None
    group: Org | None = None  # whose items are changed, for the record
    keeps_record: bool = True
    is_idempotent: bool = False  # to carry out an empty plan too, without a question
    prints: bool = True  # False if the caller prints the result, as one that waits for its end

    def __post_init__(self) -> None:
        self._work = [row for row in self.plan if row["outcome"] in _WORK]

    @property
    def is_empty(self) -> bool:
        """Return True if no item is to change."""
        return not self._work

    @property
    def is_recorded(self) -> bool:
        """Return True if there is something to record."""
        return self.keeps_record and not self.is_empty

    def subject(self) -> Subject:
        """Return the facts to record in the history."""
        context, items = self.context, len(self._work)
        via = "db" if context.writes_database or "access" not in vars(context) else "api"
        return Subject(
            command=_command(),
            target=context.target.label,
            place=place_of_target(context, via),
            group_id=self.group.id if self.group else None,
            group=self.group.name if self.group else None,
            file=InputFile(),
            counts=Counts(rows=items, to_change=items),
            via=via,
            api=context.given_api if via == "api" else None,
            single=True,
        )

    def digest(self) -> str:
        """Return the digest of the plan."""
        return digest_of([_command(), self.context.target.label, list(self.plan)])

    def explain(self) -> None:
        """Show the details of the plan."""
        if self.details:
            self.context.out.preview(*self.details, limit=self.shows)

    def show(self) -> None:
        """Print the whole plan as a result."""
        if self.plan_columns:
            return self.context.out.rows(self.plan_columns, self.plan)
        return self._print(self.plan)

    def check(self) -> None:
        """Check that the user may make the change; see `Change.check`."""
        if self.permitted:
            self.permitted()

    def preview(self) -> None:
        """Show the beginning of the plan, before the question."""
        if self.details or (self.single and not (self.shown or self.plan_columns)):
            return
        columns = tuple(c for c in self.plan_columns or self.columns if c is not OUTCOME)
        self.context.out.preview(*(self.shown or (columns, self._work)), limit=self.shows)

    def leave(self, recording: Recording) -> None:
        """Report that nothing was changed."""
        recording.ended(Outcome.NOTHING)
        if self.is_idempotent:
            self._print(list(chain.from_iterable(self.carry_out())))
        else:
            self._print([{**row, "outcome": _RESULT_OF[row["outcome"]]} for row in self.plan])
        self.context.out.nothing(self.reason)

    def apply(self, recording: Recording) -> None:
        """Carry out the plan, report the result, and say how to undo it."""
        try:
            saved = self.save(recording) if self.save else None
            rows = self._carry_out(recording, saved)
        except (AspenError, NotAllowedError) as error:
            if len(self._work) == 1 and _is_rejection(error):
                # A single item is written whole or not at all, and this one was rejected.
                error.message = _unwritten(error.message)
                recording.ended(Outcome.ROLLED_BACK, error.message)
            raise
        if self.ended:
            self.ended(rows)
        recording.ended(Outcome.WRITTEN)
        out = self.context.out
        if not any(row["outcome"] in _WORKED for row in rows):
            return out.nothing(self.reason)
        if done := _text(self.done, rows):
            out.done(done)
        if saved:
            saved.tell()
        if following := _text(self.next, rows):
            out.hint(following)
        return None

    def _carry_out(self, recording: Recording, saved: SavedFile | None) -> Sequence[Row]:
        rows: list[Row] = []
        keeping: AbstractContextManager[None] = nullcontext()
        if saved:
            keeping = recording.keeping(saved.path, rows, saved.tell, undoes=saved.undoes)
        else:
            recording.changing()
        total = len(self._work) if self.partial else None
        progress: AbstractContextManager[Tick] = nullcontext(lambda _done: None)
        if self.label:
            progress = self.context.out.progress(self.label, total)
        with keeping, self._reported(rows), progress as tick:
            for some in self.carry_out():
                rows += some
                tick(len(rows))
        return rows

    @contextmanager
    def _reported(self, rows: Sequence[Row]) -> Iterator[None]:
        """Print the result at the end, also if an error cuts it short."""
        out = self.context.out
        try:
            yield
        except BaseException as error:
            if rows:
                self._print(rows)
                done = f"{len(rows):,} of {len(self._work):,} {self.partial}"
                out.warn(f"{done} before the error (listed above).")
            if self.partial and isinstance(error, (KeyboardInterrupt, UncertainError)):
                out.warn("The last request may have been carried out too. Check before you retry.")
            raise
        if self.prints:
            self._print(rows)

    def _print(self, rows: Sequence[Row]) -> None:
        out, columns = self.context.out, self.columns
        if not any(row.get(_REASON) for row in rows):  # people then need no column for it
            columns = tuple(replace(c, retired=True) if c.key == _REASON else c for c in columns)
        (out.records if self.single else out.rows)(columns, rows)


def _text(said: str | Callable[[Sequence[Row]], str], rows: Sequence[Row]) -> str:
    return said if isinstance(said, str) else said(rows)


def _is_rejection(error: BaseException) -> TypeGuard[AspenError | NotAllowedError]:
    if isinstance(error, (ConflictError, NotAllowedError)):
        return True
    return isinstance(error, AspenError) and error.is_rejection


def _unwritten(message: str) -> str:
    if "nothing was" in message.lower():
        return message
    return f"{message.rstrip('.')}; nothing was written."


def _command() -> str:
    """Return the running command's name, such as ``users create``."""
    context = get_current_context()
    names = []
    while context.parent is not None:
        names.append(context.command.name or "")
        context = context.parent
    return " ".join(reversed(names))


def digest_of(plan: Any) -> str:
    """Return the SHA-256 of a plan in a canonical form: JSON with sorted keys, without spaces.

    The same plan always has the same one.
    """
    text = json.dumps(plan, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def signed(context: AppContext, subject: Subject) -> Subject:
    """Return the facts about a run with its command line, and the user and account of the API.

    They are what is known without asking anyone.
    """
    account = account_id = account_name = None
    if subject.via == "api":
        if (acting := context.acting_account) is not None:
            account_name = acting.name
            account, account_id = acting.email or None, acting.subject or None
        with suppress(AspenError):  # a sign-in that cannot be read fails where it is needed
            if (known := context.access.session.known()) is not None:
                account, account_id = known.who, known.subject
    argv = tuple(masked_words(context.argv))
    return replace(
        subject, argv=argv, account=account, account_id=account_id, account_name=account_name
    )


def place_of_target(context: AppContext, via: str) -> Place:
    """Return the target's database or API as recorded in the history; empty if not known."""
    try:
        if via == "api":
            return Place(api=context.access.at.api_url, beside=context.database_address)
        from sqlalchemy.engine import make_url  # the API's commands do without SQLAlchemy

        url = make_url(context.database_url())
    except AspenError:  # such as a local deployment that is not running
        return Place()
    return place_of(url, None)


def is_made_here(out: Output, recorded: Place, here: Place, run: str, where: str = "") -> bool:
    """Return True if a run was made on this database or API; warn if that is uncertain.

    Args:
        out: The output for the warning.
        recorded: The place of the run, as far as it is recorded.
        here: The current place.
        run: The run's name in messages.
        where: The words for the current place in the warning; by default its address.

    Raises:
        RefusedError: It was made on a different one.
    """
    if is_same_place(recorded, here, run):
        return True
    out.warn(f"Cannot tell whether {run} was made on {where or here}. Check before you confirm.")
    return False


def authorize(
    target: Target,
    out: Output,
    what: str,
    *,
    yes: bool,
    name: str | None,
    by_name: bool = False,
    dry_run: bool = True,
    stdin: str = "",
) -> None:
    """Return only if the write is confirmed.

    On production, and anywhere if ``by_name`` is set, ``--yes`` is not enough: the target's name
    must be given or typed. If the address belongs to another target, that target's name counts.
    ``dry_run`` means that the command has ``--dry-run``, which the hint then mentions. ``stdin`` is
    the noun for the file on standard input, if that is where the input comes from.

    ``yes`` and ``name`` are what was given with ``--yes`` and ``--confirm``.

    Raises:
        RefusedError: The write was declined, the name is wrong, or there is no terminal to ask on.
    """
    if target.warning:
        out.warn(target.warning)
    if stdin and name is None and (target.is_production or not yes):
        _refuse_beside(stdin, target, what)
    if name is not None:
        _match(target, name)
    elif target.is_production or by_name:
        _ask_name(target, out, what, _first(dry_run))
    elif not yes:
        _ask(target, out, what, _first(dry_run))


def _match(target: Target, name: str) -> None:
    accepted = {target.belongs_to} if target.belongs_to else {target.name, target.label}
    if name not in accepted:
        raise RefusedError(
            f"--confirm {name} does not match the target, {target.confirmed_by}; "
            "nothing was written.",
            hint=f"Check --env, then pass --confirm {target.confirmed_by}.",
        )


def _refuse_beside(stdin: str, target: Target, what: str) -> None:
    name = shlex.quote(target.confirmed_by)
    flag = f"--confirm {name}" if target.is_production else "--yes"
    raise RefusedError(
        f"Confirmation required to {what} on {target.label}, but standard input is the {stdin}; "
        "nothing was written.",
        hint=f"Review the plan with --dry-run, then add {flag}.",
    )


def _first(dry_run: bool) -> str:
    return "Review the plan with --dry-run, then pass" if dry_run else "Pass"


def _ask_name(target: Target, out: Output, what: str, first: str) -> None:
    if not out.interactive:
        where = f" on production ({target.confirmed_by})" if target.is_production else ""
        raise RefusedError(
            f"Confirmation by name required to {what}{where}; nothing was written.",
            hint=f"{first} --confirm {target.confirmed_by}.",
        )
    if out.ask(f"Type {target.confirmed_by} to {what}:") != target.confirmed_by:
        raise RefusedError("Not confirmed; nothing was written.")


def _ask(target: Target, out: Output, what: str, first: str) -> None:
    if not out.interactive:
        raise RefusedError(
            f"Confirmation required to {what} on {target.label}, but this is not a terminal; "
            "nothing was written.",
            hint=f"{first} --yes.",
        )
    if not out.confirm(f"{what[0].upper()}{what[1:]} on {target.label}?"):
        raise RefusedError("Declined; nothing was written.")
