"""``aspencli db cancel`` and ``terminate``: cancel a statement, or end a session."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from aspencli.cli import examples
from aspencli.commands.diagnostic_views import query_text, seconds_text
from aspencli.context import AppContext, current
from aspencli.errors import AspenError
from aspencli.output.rendering import Column
from aspencli.params import DryRunOption

if TYPE_CHECKING:
    from aspencli.services.diagnostics.sessions import SeenSession
    from aspencli.services.diagnostics.signals import Outcome, Signal

COLUMNS = (
    Column("pid", "PID", right=True, whole=True),
    Column("user", "User"),
    Column("application", "Application"),
    Column("client", "Client", secondary=True),
    Column("state", "State"),
    Column("transaction_s", "Transaction", right=True),
    Column("query", "Statement"),
)
RESULT_COLUMNS = (
    Column("pid", "PID", right=True, whole=True),
    Column("user", "User"),
    Column("application", "Application"),
    Column("outcome", "Outcome"),
)
Pids = Annotated[
    list[int],
    typer.Argument(metavar="PID...", min=1, help="Server processes, as `db activity` shows them."),
]


def cancel(ctx: typer.Context, pids: Pids, dry_run: DryRunOption = False) -> None:
    """Cancel the statement that a session runs; the session and its connection stay.

    It asks first; on production --confirm is needed. A session that runs none is left alone.
    Outcomes: done, gone (it ended by itself before), idle (it ran none), pending (exit code 1).
    """
    from aspencli.services.diagnostics.signals import Signal

    _send(current(ctx), pids, Signal.CANCEL, dry_run=dry_run)


def terminate(ctx: typer.Context, pids: Pids, dry_run: DryRunOption = False) -> None:
    """End a session: its open transaction is rolled back, its connection closed.

    It asks first; on production --confirm is needed. Only ends sessions of the target's database.
    Outcomes: done, gone (it ended by itself before), pending (exit code 1).
    """
    from aspencli.services.diagnostics.signals import Signal

    _send(current(ctx), pids, Signal.TERMINATE, dry_run=dry_run)


def _send(context: AppContext, pids: list[int], signal: Signal, *, dry_run: bool) -> None:
    from aspencli.services.diagnostics.looking import looking
    from aspencli.services.diagnostics.signals import find_sessions

    database = context.database()
    with looking(database) as session:
        found = find_sessions(session, pids)
    context.out.preview(COLUMNS, [_row(context, seen) for seen in found], limit=50)
    if dry_run:
        return context.out.info(f"would {_words(signal, found)}; nothing was done")
    context.authorise(_words(signal, found))
    outcomes = _send_all(context, found, signal)
    context.out.rows(
        RESULT_COLUMNS,
        [{**vars(seen), "outcome": word} for seen, word in zip(found, outcomes, strict=True)],
    )
    pending = [str(s.pid) for s, word in zip(found, outcomes, strict=True) if word == "pending"]
    if pending:
        raise AspenError(
            f"the server was told, but pid {', '.join(pending)} goes on",
            hint="Look again in a moment: aspencli db activity",
        )
    return None


def _send_all(context: AppContext, found: list[SeenSession], signal: Signal) -> list[str]:
    from aspencli.services.diagnostics.signals import Signal, send

    outcomes = []
    database = context.database()
    for seen in found:
        if signal is Signal.CANCEL and not seen.may_run:
            context.out.warn(f"pid {seen.pid} is {seen.state}: it runs no statement to cancel")
            context.out.hint(f"To end the session: aspencli db terminate {seen.pid}")
            outcomes.append("idle")
            continue
        outcome = send(database, seen, signal)
        _tell(context, seen, signal, outcome)
        outcomes.append(outcome.value)
    return outcomes


def _tell(context: AppContext, seen: SeenSession, signal: Signal, outcome: Outcome) -> None:
    from aspencli.services.diagnostics.signals import Outcome, Signal

    cancelling = signal is Signal.CANCEL
    if outcome is Outcome.DONE:
        what = "cancelled the statement of" if cancelling else "ended"
        context.out.done(f"{what} pid {seen.pid} ({seen})")
    elif outcome is Outcome.GONE:
        what = "its statement" if cancelling else "the session"
        context.out.info(f"pid {seen.pid}: {what} had ended before; nothing was done")


def _words(signal: Signal, found: list[SeenSession]) -> str:
    from aspencli.services.diagnostics.signals import Signal

    who = ", ".join(f"pid {seen.pid} ({seen})" for seen in found)
    return f"cancel the statement of {who}" if signal is Signal.CANCEL else f"end {who}"


def _row(context: AppContext, seen: SeenSession) -> dict[str, object]:
    return {
        **vars(seen),
        "transaction_s": seconds_text(context.out, seen.transaction_s),
        "query": query_text(context.out, seen.query),
    }


def register(app: typer.Typer) -> None:
    """Add the commands to their group."""
    app.command(
        epilog=examples(
            "aspencli db cancel 4711", "aspencli --env prod db cancel 4711 --confirm prod"
        )
    )(cancel)
    app.command(
        epilog=examples(
            "aspencli db terminate 4711",
            "aspencli --env prod db terminate 4711 4712 --confirm prod",
        )
    )(terminate)
