"""``aspencli db status``: the database at a glance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from aspencli.cli import examples
from aspencli.context import AppContext, current
from aspencli.output.rendering import Column
from aspencli.output.text import size_text

if TYPE_CHECKING:
    from aspencli.services.status import Status

# The first five counts are those of aspencli.services.status.TABLES.
COLUMNS = (
    Column("target", "Target"),
    Column("host", "Host"),
    Column("port", "Port"),
    Column("database", "Database"),
    Column("user", "User"),
    Column("server_version", "PostgreSQL"),
    Column("revision", "Revision", whole=True),
    Column("head", "Newest revision"),
    Column("schema", "Schema"),
    Column("size", "Size"),
    Column("samples", "Samples"),
    Column("users", "Users"),
    Column("groups", "Groups"),
    Column("phylo_runs", "Phylo runs"),
    Column("phylo_trees", "Phylo trees"),
    Column("estimated", "Estimated counts"),
    Column("connections", "Connections"),
    Column("max_connections", "Of at most"),
    Column("waiting", "Waiting for locks"),
    Column("longest_transaction_s", "Longest transaction (s)"),
    Column("longest_transaction", "Whose"),
    Column("read_only", "Read-only"),
    Column("replication", "Replication"),
    Column("verdict", "Verdict"),
    Column("pooler", "Pooler"),
    Column("limits", "Time limits"),
)


def status(ctx: typer.Context) -> None:
    """Show the server, the schema's revision, sizes, counts, and who is connected.

    The last line says what matters, and the next step. Counts of big tables are the server's
    estimates. The exit code is 0 whenever the database answers.
    """
    from aspencli.services.status import status as ask

    context = current(ctx)
    found = ask(context.database())
    context.out.record(COLUMNS, _row(context, found))
    if found.pooler:
        context.out.info(
            "Connected through a pooler; each transaction sets its own mode and limits."
        )
    verdict = found.verdict
    say = context.out.done if verdict.word == "ready" else context.out.warn
    say(verdict.message)
    if verdict.step:
        context.out.hint(verdict.step)


def _row(context: AppContext, found: Status) -> dict[str, Any]:
    from aspencli.services.status import TABLES

    people = context.out.chosen_form == "table"
    counts = {name: found.counts.get(name) for name in TABLES}
    return {
        "target": context.target.label,
        **{name: getattr(found, name) for name in ("host", "port", "database", "user")},
        "server_version": found.version,
        "revision": found.schema.revision,
        "head": found.schema.head,
        "schema": found.schema.word,
        "size": size_text(found.size) if people else found.size,
        **{
            name: count if people or count is None else count.rows for name, count in counts.items()
        },
        "estimated": [name for name, count in counts.items() if count and count.estimated],
        "connections": found.activity.connections,
        "max_connections": found.activity.max_connections,
        "waiting": found.activity.waiting,
        "longest_transaction_s": found.activity.longest_s,
        "longest_transaction": found.activity.longest,
        "read_only": found.read_only,
        "replication": str(found.replication),
        "verdict": found.verdict.word,
        "pooler": found.pooler,
        "limits": _limits(found) if people else {n: vars(v) for n, v in found.limits.items()},
    }


def _limits(found: Status) -> str:
    """Return the time limits as text, with both values where the server's differs from ours."""
    return "; ".join(
        f"{name}: {_seconds(limit.used)}"
        + (
            f" (server {_seconds(limit.server)}, ours {_seconds(limit.ours)})"
            if limit.server != limit.ours
            else ""
        )
        for name, limit in found.limits.items()
    )


def _seconds(milliseconds: int) -> str:
    return f"{milliseconds / 1_000:g} s" if milliseconds else "none"


def register(app: typer.Typer) -> None:
    """Add the command to its group."""
    app.command(epilog=examples("aspencli db status", "aspencli --env prod db status -o json"))(
        status
    )
