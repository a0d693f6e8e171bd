"""``aspencli db activity`` and ``locks``: active sessions, and sessions waiting for locks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from aspencli.cli import examples
from aspencli.commands.diagnostic_views import query_text, seconds_text, tell_hidden
from aspencli.context import AppContext, current
from aspencli.output.rendering import Column
from aspencli.output.text import counted, duration_text

if TYPE_CHECKING:
    from aspencli.services.diagnostics.locks import Node
    from aspencli.services.diagnostics.sessions import SeenSession

ACTIVITY_COLUMNS = (
    Column("pid", "PID", right=True, whole=True),
    Column("user", "User"),
    Column("application", "Application", secondary=True),
    Column("client", "Client", secondary=True),
    Column("kind", "Kind", secondary=True),
    Column("state", "State"),
    Column("state_s", "For", right=True),
    Column("transaction_s", "Transaction", right=True),
    Column("wait", "Waits for", secondary=True),
    Column("blocked_by", "Blocked by"),
    Column("query", "Statement"),
)
LOCK_COLUMNS = (
    Column("pid", "PID", whole=True),
    Column("depth", "Depth", right=True, secondary=True),
    Column("blocked_by", "Blocked by", secondary=True),
    Column("blocks", "Holds up", right=True),
    Column("user", "User", secondary=True),
    Column("application", "Application", secondary=True),
    Column("state", "State"),
    Column("transaction_s", "Transaction", right=True),
    Column("waited_s", "Waits", right=True),
    Column("lock", "For lock", secondary=True),
    Column("relation", "On"),
    Column("query", "Statement"),
)


def activity(
    ctx: typer.Context,
    everybody: Annotated[
        bool, typer.Option("--all", help="Those as well who are connected and do nothing.")
    ] = False,
) -> None:
    """Show what the sessions of the database do, the oldest transaction first.

    What other users do is shown to members of pg_monitor; to others it is empty, and that is said.
    """
    from aspencli.services.diagnostics.looking import looking
    from aspencli.services.diagnostics.sessions import activity as ask

    context = current(ctx)
    with looking(context.database()) as session:
        found = ask(session)
    shown = [seen for seen in found.sessions if everybody or not seen.resting]
    idle = f"{counted(found.resting, 'session')} {'is' if found.resting == 1 else 'are'}"
    context.out.rows(
        ACTIVITY_COLUMNS,
        [_activity_row(context, seen) for seen in shown],
        empty=f"Nobody does anything; {idle} idle." if found.resting else "Nobody else is here.",
    )
    if shown and not everybody and found.resting:
        context.out.info(f"{idle} connected and idle: --all shows them")
    tell_hidden(context.out, found.rights, found.hidden, "sessions of other users: what they do")


def _activity_row(context: AppContext, seen: SeenSession) -> dict[str, Any]:
    people = context.out.chosen_form == "table"
    blockers = ", ".join(map(str, seen.blocked_by)) if people else list(seen.blocked_by)
    return {
        **vars(seen),
        "state": "(hidden)" if people and seen.hidden else seen.state,
        "state_s": seconds_text(context.out, seen.state_s),
        "transaction_s": seconds_text(context.out, seen.transaction_s),
        "blocked_by": blockers,
        "query": query_text(context.out, seen.query),
    }


def locks(ctx: typer.Context) -> None:
    """Show who waits for a lock, as a tree below the one who holds everybody up.

    In a table the tree is drawn in the first column; elsewhere depth and blocked_by tell it. A
    session that waits for several others stands once, below the first of them. The exit code is 0
    whether anybody waits or not.
    """
    from aspencli.services.diagnostics.locks import locks as ask
    from aspencli.services.diagnostics.looking import looking

    context = current(ctx)
    with looking(context.database()) as session:
        found = ask(session)
    context.out.rows(
        LOCK_COLUMNS,
        [_lock_row(context, node) for node in found.nodes],
        empty="Nobody waits for a lock.",
    )
    for root in found.roots:
        context.out.warn(held_up(root))
        context.out.hint(way_out(root))
    hidden = sum(node.session is not None and node.session.hidden for node in found.nodes)
    tell_hidden(context.out, found.rights, hidden, "sessions of other users: what they do")


def _lock_row(context: AppContext, node: Node) -> dict[str, Any]:
    people = context.out.chosen_form == "table"
    seen, wait = node.session, node.wait
    return {
        "pid": "  " * (node.depth - 1) + "└ " * (node.depth > 0) + str(node.pid)
        if people
        else node.pid,
        "depth": node.depth,
        "blocked_by": list(wait.blocked_by) if wait else [],
        "blocks": node.blocks,
        "user": seen.user if seen else None,
        "application": seen.application if seen else None,
        "state": _state(node, people=people),
        "transaction_s": seconds_text(context.out, seen.transaction_s if seen else None),
        "waited_s": seconds_text(context.out, wait.waited_s if wait else None),
        "lock": f"{wait.mode} on {wait.kind}" if wait else None,
        "relation": wait.relation if wait else None,
        "query": query_text(context.out, seen.query if seen else None),
    }


def _state(node: Node, *, people: bool) -> str | None:
    if node.session is None:
        return "prepared transaction" if node.pid == 0 else None
    return "(hidden)" if people and node.session.hidden else node.session.state


def held_up(root: Node) -> str:
    """Return a message that says how many sessions this one blocks, and its own state."""
    many = f"holds up {counted(root.blocks, 'session')}"
    seen = root.session
    if seen is None:
        return f"a prepared transaction {many}" if root.pid == 0 else f"pid {root.pid} {many}"
    doing = ""
    if seen.state is not None:
        doing = f"; it is {seen.state}"
        if seen.state_s is not None:
            doing += f" for {duration_text(seen.state_s)}"
    return f"pid {root.pid} ({seen}) {many}{doing}"


def way_out(root: Node) -> str:
    """Return advice on how to clear a blocking session."""
    if root.pid == 0:
        return "Find it in pg_prepared_xacts; then COMMIT PREPARED or ROLLBACK PREPARED its name."
    if root.session is not None and root.session.state == "active":
        return f"Cancel its statement: aspencli db cancel {root.pid}"
    return f"Have it end its transaction, or end it: aspencli db terminate {root.pid}"


def register(app: typer.Typer) -> None:
    """Add the commands to their group."""
    app.command(
        epilog=examples("aspencli db activity", "aspencli --env prod db activity --all -o json")
    )(activity)
    app.command(epilog=examples("aspencli db locks", "aspencli --env prod db locks"))(locks)
