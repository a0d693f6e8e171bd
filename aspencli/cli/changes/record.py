"""Writes of single items and of whole databases, recorded in the history like bulk runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aspencli.changes.journal import open_journal
from aspencli.changes.recording import Recording, Subject
from aspencli.changes.runs import Counts, InputFile, Outcome, Place

if TYPE_CHECKING:
    from aspencli.cli.context import AppContext


@dataclass(frozen=True)
class Change:
    """The facts about a write.

    Attributes:
        command: The command, such as ``users create``.
        what: The action, as a verb phrase for the question, such as ``create 2 samples``.
        items: The number of items to change, if known.
        via: The backend: ``db`` or ``api``.
        group_id: The group whose items are changed, if it is one.
        group: The group's name.
        atomic: True if all items change or none does; otherwise an error in the middle leaves the
            run *unfinished*.
    """

    command: str
    what: str
    items: int | None = None
    via: str = "api"
    group_id: int | None = None
    group: str | None = None
    atomic: bool = False


@contextmanager
def recorded(
    context: AppContext,
    change: Change,
    *,
    default_yes: bool = False,
    by_name: bool = False,
    dry_run: bool = True,
) -> Iterator[Recording]:
    """Record a write before and after it happens; ask for confirmation in between.

    The block makes the change. Its error, or the refusal, decides the recorded outcome. See
    `AppContext.authorise` for the other arguments.

    Raises:
        RefusedError: The write was declined.
        AspenError: The history cannot be written; nothing was changed.
    """
    subject = Subject(
        command=change.command,
        target=context.target.label,
        place=_place(context, change.via),
        group_id=change.group_id,
        group=change.group,
        file=InputFile(),
        counts=Counts(rows=change.items, to_change=change.items),
        via=change.via,
        api=context.given_api if change.via == "api" else None,
        single=True,
    )
    with Recording(open_journal(), subject, context.out.warn) as recording:
        context.authorise(change.what, default_yes=default_yes, by_name=by_name, dry_run=dry_run)
        recording.changing(atomic=change.atomic)
        yield recording
        recording.ended(Outcome.WRITTEN)


def _place(context: AppContext, via: str) -> Place:
    if via == "api":
        return Place(api=context.access.at.api_url)
    from sqlalchemy.engine import make_url

    from aspen.database.libpq import first_text

    url = make_url(context.database_url())
    return Place(url.host or first_text(url.query.get("host")) or None, url.port, url.database)
