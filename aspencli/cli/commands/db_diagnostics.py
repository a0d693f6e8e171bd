"""``aspencli db outliers``, ``sizes``, ``indexes``, ``bloat`` and ``settings``: diagnostics."""

from __future__ import annotations

import datetime as dt
import enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aspencli.cli.app import examples
from aspencli.cli.context import AppContext, current
from aspencli.cli.output.diagnostics import (
    BLOAT_COLUMNS,
    INDEX_COLUMNS,
    OUTLIER_COLUMNS,
    SETTING_COLUMNS,
    SIZE_COLUMNS,
    bytes_text,
    for_people,
    millis_text,
    print_next_steps,
    query_text,
    share_text,
    warn_hidden,
    warn_omitted,
)
from aspencli.cli.params import AllOption, LimitOption, chosen_limit
from aspencli.text import counted, size_text

if TYPE_CHECKING:
    from aspencli.diagnostics.bloat import Bloat
    from aspencli.diagnostics.indexes import IndexFinding


_SHORT = 20  # rows of a table by default
_MILLIS = ("total_ms", "mean_ms", "max_ms", "read_ms")  # columns of outliers
_BYTES = ("read_bytes", "temp_bytes")


class Cost(enum.Enum):
    """The sort orders of the most expensive statements."""

    TOTAL = "total"
    MEAN = "mean"
    CALLS = "calls"
    READ = "read"
    TEMP = "temp"


class Kind(enum.Enum):
    """The kinds of findings about an index."""

    INVALID = "invalid"
    DUPLICATE = "duplicate"
    MISSING = "missing"
    COVERED = "covered"
    UNUSED = "unused"


def outliers(
    ctx: typer.Context,
    by: Annotated[Cost, typer.Option("--by", help="Sort order.")] = Cost.TOTAL,
    limit: LimitOption = None,
    everything: AllOption = False,
) -> None:
    """Show the most expensive statements, as counted by pg_stat_statements.

    Statements that differ only in constants are combined; times are server time, across all
    clients. If the extension is missing, the exit code is 6, and a hint shows how to install it.
    Table output shows the first 20.
    """
    from aspencli.diagnostics.outliers import Order
    from aspencli.diagnostics.outliers import outliers as ask
    from aspencli.diagnostics.session import looking

    context = current(ctx)
    chosen = _limit(context, limit, everything)
    with looking(context.database()) as session:
        found = ask(session, order=Order(by.value), limit=chosen)
    rows = [
        {
            **vars(item),
            **{key: millis_text(context.out, getattr(item, key)) for key in _MILLIS},
            **{key: share_text(context.out, getattr(item, key)) for key in ("share", "hit")},
            **{key: bytes_text(context.out, getattr(item, key)) for key in _BYTES},
            "query": query_text(context.out, item.query),
        }
        for item in found.statements
    ]
    context.out.rows(OUTLIER_COLUMNS, rows, empty="No statements have been recorded yet.")
    since = f", counted since {_moment(found.since)}" if found.since else ""
    context.out.info(f"{len(rows)} of {found.seen} statements shown{since}")
    warn_hidden(context.out, found.rights, found.hidden, "statement", "the text of")


def sizes(ctx: typer.Context, limit: LimitOption = None, everything: AllOption = False) -> None:
    """Show the size of each table, largest first: heap, long values (TOAST), and indexes.

    Row counts are the server's estimates. Sizes of locked tables are estimated, and marked as such.
    Table output shows the first 20.
    """
    from aspencli.diagnostics.session import looking
    from aspencli.diagnostics.tables import sizes as ask

    context = current(ctx)
    chosen = _limit(context, limit, everything)
    with looking(context.database()) as session:
        found = ask(session)
    parts = ("total", "heap", "toast", "indexes")
    rows = [
        {**vars(table), **{part: bytes_text(context.out, getattr(table, part)) for part in parts}}
        for table in found.tables[:chosen]
    ]
    exact = {"estimated"} if not any(table.estimated for table in found.tables) else set()
    columns = for_people(context.out, SIZE_COLUMNS, exact)
    context.out.rows(columns, rows, empty="No tables.")
    tables = counted(len(found.tables), "table")
    context.out.info(f"{len(rows)} of {tables} shown; database size: {size_text(found.database)}")
    guessed = sorted(table.table for table in found.tables if table.estimated)
    warn_omitted(context.out, guessed, "estimated")


def indexes(
    ctx: typer.Context,
    only: Annotated[
        list[Kind] | None,
        typer.Option("--only", help="Show only this kind of finding; repeatable."),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Include missing indexes of small tables.")
    ] = False,
) -> None:
    """Show indexes that are invalid, duplicate, covered by another, unused, or missing.

    Missing: foreign keys without an index, in tables with more than 10,000 rows. Unused: indexes
    over 40 kB that no query has used since the server's statistics were reset, except unique ones.
    Nothing is changed; the last column is the statement that fixes the finding. The exit code is 0
    even if there are findings.
    """
    from aspencli.diagnostics.indexes import indexes as ask
    from aspencli.diagnostics.session import looking

    context = current(ctx)
    with looking(context.database()) as session:
        found = ask(session)
    kinds = {kind.value for kind in only or Kind}
    asked = [finding for finding in found.findings if finding.finding.value in kinds]
    shown = [finding for finding in asked if everything or finding.matters]
    # For missing indexes, the statement below already says everything.
    without = {"why"} if all(one.finding.value == Kind.MISSING.value for one in shown) else set()
    context.out.rows(
        for_people(context.out, INDEX_COLUMNS, {"rows", "scans", "step", *without}),
        [_index_row(context, finding) for finding in shown],
        empty=f"No findings ({found.seen} indexes checked).",
    )
    print_next_steps(context.out, [finding.step for finding in shown])
    if any(finding.finding.value == Kind.UNUSED.value for finding in shown):
        since = f"since {_moment(found.since)}" if found.since else "since the server was created"
        context.out.info(f"Index use is counted {since}, on this server only (not on standbys).")
    if small := len(asked) - len(shown):
        context.out.info(f"{small} missing on small tables not shown; use --all")
    warn_omitted(context.out, found.left_out, "skipped")


def _index_row(context: AppContext, finding: IndexFinding) -> dict[str, Any]:
    columns = [column or "(expression)" for column in finding.columns]
    return {
        **vars(finding),
        "columns": ", ".join(columns) if context.out.chosen_form == "table" else columns,
        "size": bytes_text(context.out, finding.size),
    }


def bloat(ctx: typer.Context, limit: LimitOption = None, everything: AllOption = False) -> None:
    """Estimate the wasted space in tables and indexes, largest first.

    Based on the planner's statistics, without reading tables; rough for small tables. The last
    column is the statement that reclaims the space, shown where more than 10 MB and 40% are wasted.
    Table output shows the first 20.
    """
    from aspencli.diagnostics.bloat import bloat as ask
    from aspencli.diagnostics.session import looking

    context = current(ctx)
    chosen = _limit(context, limit, everything)
    with looking(context.database()) as session:
        found = ask(session)
    shown = found.items[:chosen]
    context.out.rows(
        for_people(context.out, BLOAT_COLUMNS, {"table", "step"}),
        [_bloat_row(context, item) for item in shown],
        empty="No tables.",
    )
    print_next_steps(context.out, [item.step for item in shown if item.is_bloated])
    if found.unknown:
        context.out.warn(
            f"{found.unknown} of {len(found.items)} tables and indexes have no statistics, or none "
            f"that user {found.rights.user} can see"
        )
        context.out.hint("Run ANALYZE, and connect as a user who can read the tables.")
    warn_omitted(context.out, found.left_out, "skipped")


def _bloat_row(context: AppContext, item: Bloat) -> dict[str, Any]:
    return {
        **vars(item),
        "size": bytes_text(context.out, item.size),
        "wasted": bytes_text(context.out, item.wasted),
        "share": share_text(context.out, item.share),
        "vacuumed": _moment(item.vacuumed),
        "analysed": _moment(item.analysed),
        "step": item.step if item.is_bloated else None,
    }


def _moment(at: dt.datetime | None) -> str | None:
    return None if at is None else at.astimezone(dt.UTC).isoformat(timespec="seconds")


def settings(
    ctx: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[WORD]...", help="Only settings whose names contain one of these words."
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Show every setting.")] = False,
) -> None:
    """Show the server settings that matter or were changed, with remarks on unusual values.

    Values are those of a new session of this user, without the settings that aspencli applies.
    """
    from aspencli.diagnostics.settings import settings as ask

    context = current(ctx)
    found = ask(context.database())
    if names:
        shown = found.named(names)
    else:
        shown = [item for item in found.items if everything or item.matters]
    columns = for_people(context.out, SETTING_COLUMNS, {"pending_restart", "about", "remark"})
    context.out.rows(columns, [vars(item) for item in shown])
    if context.out.chosen_form == "table":  # a column for it would truncate the more important ones
        for item in sorted(shown, key=lambda one: not one.severe):
            if item.remark:
                context.out.warn(f"{item.name} = {item.value}: {item.remark}")
    if not found.rights.settings:
        context.out.warn(f"User {found.rights.user} cannot see administrator-only settings.")
        context.out.hint(f"Ask an administrator to run: {found.rights.cure}")


def _limit(context: AppContext, limit: int | None, everything: bool) -> int | None:
    if limit is None and not everything and context.out.chosen_form == "table":
        return _SHORT
    return chosen_limit(context.out, limit, everything)


def register(app: typer.Typer) -> None:
    """Add the commands to their group."""
    app.command(
        rich_help_panel="Health",
        epilog=examples(
            "aspencli db outliers", "aspencli --env prod db outliers --by mean -o json"
        ),
    )(outliers)
    app.command(
        rich_help_panel="Health",
        epilog=examples("aspencli db sizes", "aspencli db sizes --all -o csv"),
    )(sizes)
    app.command(
        rich_help_panel="Health",
        epilog=examples("aspencli db indexes", "aspencli db indexes --only missing -o json"),
    )(indexes)
    app.command(
        rich_help_panel="Health",
        epilog=examples("aspencli db bloat", "aspencli db bloat --limit 5"),
    )(bloat)
    app.command(
        rich_help_panel="Health",
        epilog=examples("aspencli db settings", "aspencli db settings timeout work_mem"),
    )(settings)
