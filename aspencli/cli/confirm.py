"""Confirmation of writes, as strict as the target's safety level requires, and their record.

Every write that is confirmed here is recorded in the history, from before the question until the
command ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeGuard

from typer._click.globals import get_current_context

from aspen.database.errors import NotAllowedError
from aspencli.changes.journal import open_journal
from aspencli.changes.recording import Recording, Subject, place_of
from aspencli.changes.runs import Counts, InputFile, Outcome, Place
from aspencli.cli.output.console import Output
from aspencli.errors import AspenError, ConflictError, RefusedError
from aspencli.targets import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Sized
    from contextlib import AbstractContextManager
    from pathlib import Path

    from aspencli.cli.context import AppContext
    from aspencli.remote.scope import Org


@dataclass(frozen=True)
class Consent:
    """The confirmation given on the command line.

    Attributes:
        yes: True if ``--yes`` was given.
        name: The target's name given with ``--confirm``, or None.
    """

    yes: bool = False
    name: str | None = None


def authorize(
    target: Target,
    consent: Consent,
    out: Output,
    what: str,
    *,
    by_name: bool = False,
    dry_run: bool = True,
) -> None:
    """Return only if the write is confirmed.

    On production, and anywhere if ``by_name`` is set, ``--yes`` is not enough: the target's name
    must be given or typed. If the address belongs to another target, that target's name counts.
    ``dry_run`` means that the command has ``--dry-run``, which the hint then mentions.

    Raises:
        RefusedError: The write was declined, the name is wrong, or there is no terminal to ask on.
    """
    if target.warning:
        out.warn(target.warning)
    if consent.name is not None:
        _match(target, consent.name)
    elif target.is_production or by_name:
        _ask_name(target, out, what, _first(dry_run))
    elif not consent.yes:
        _ask(target, out, what, _first(dry_run))


def _match(target: Target, name: str) -> None:
    accepted = {target.belongs_to} if target.belongs_to else {target.name, target.label}
    if name not in accepted:
        raise RefusedError(
            f"--confirm {name} does not match the target, {target.confirmed_by}; "
            "nothing was written.",
            hint=f"Check --env, then pass --confirm {target.confirmed_by}.",
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


class Record:
    """The record of one command's write; bulk runs have a more detailed one of their own.

    It covers every command that asks for confirmation, because the confirmation begins it.
    """

    def __init__(self) -> None:
        self._recording: Recording | None = None
        self._out: Output
        self._is_single = False
        self.place = Place()

    @property
    def run(self) -> str | None:
        """Return the ID of the run in the history, if a write was recorded."""
        return self._recording.id if self._recording else None

    def begin(self, context: AppContext, group: Org | None, items: int | None) -> None:
        """Record that a write is planned, unless one of this command already is.

        Args:
            context: The context of the command.
            group: The group whose items are changed, if it is one.
            items: The number of items, if known.

        Raises:
            AspenError: The history cannot be written; nothing was changed.
        """
        if self._recording is not None:
            return
        via = "db" if context.writes_database or "access" not in vars(context) else "api"
        self.place = _place(context, via)
        subject = Subject(
            command=_command(),
            target=context.target.label,
            place=self.place,
            group_id=group.id if group else None,
            group=group.name if group else None,
            file=InputFile(),
            counts=Counts(rows=items, to_change=items),
            via=via,
            api=context.given_api if via == "api" else None,
            single=True,
        )
        self._out, self._is_single = context.out, items == 1
        self._recording = Recording(open_journal(), subject, context.out.warn).__enter__()

    def confirmed(self) -> None:
        """Note that the write was confirmed and begins now."""
        if self._recording is not None:
            self._recording.changing()

    def keeping(
        self, path: Path, done: Sized, tell: Callable[[], None], *, undoes: bool = True
    ) -> AbstractContextManager[None]:
        """Record a file for the requests of a block; see `Recording.keeping`."""
        assert self._recording is not None  # noqa: S101 - the write was confirmed before
        return self._recording.keeping(path, done, tell, undoes=undoes)

    def end(self, error: BaseException | None) -> None:
        """Record the outcome of the write, if there was one, when the command has ended."""
        if self._recording is None:
            return
        if error is None:
            self._recording.ended(Outcome.WRITTEN)
        elif (
            isinstance(error, KeyboardInterrupt)
            and self._out.is_asking
            and self._recording.is_planned
        ):
            self._recording.ended(Outcome.DECLINED, "interrupted")
        elif self._is_single and _is_rejection(error):
            # A single item is written whole or not at all, and this one was rejected.
            error.message = _unwritten(error.message)
            self._recording.ended(Outcome.ROLLED_BACK, error.message)
        else:
            self._recording.__exit__(type(error), error, error.__traceback__)


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


def _place(context: AppContext, via: str) -> Place:
    try:
        if via == "api":
            return Place(api=context.access.at.api_url, beside=context.database_address)
        from sqlalchemy.engine import make_url  # the API's commands do without SQLAlchemy

        url = make_url(context.database_url())
    except AspenError:  # such as a local deployment that is not running
        return Place()
    return place_of(url, None)
