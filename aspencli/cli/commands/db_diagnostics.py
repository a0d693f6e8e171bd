"""``aspencli db outliers``, ``sizes``, ``indexes``, ``bloat`` and ``settings``.

Columns and filter values of the server diagnostics.

Formatting shared by the server diagnostics: durations, sizes, and statements.
"""

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
    query_text,
    share_text,
    tell_hidden,
    tell_left_out,
    tell_steps,
)
from aspencli.cli.params import AllOption, LimitOption, chosen_limit
from aspencli.text import counted, size_text

if TYPE_CHECKING:
    from aspencli.diagnostics.bloat import Bloat
    from aspencli.diagnostics.indexes import IndexFinding


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


_SHORT = 20  # rows of a table by default


def _limit(context: AppContext, limit: int | None, everything: bool) -> int | None:
    if limit is None and not everything and context.out.chosen_form == "table":
        return _SHORT
    return chosen_limit(context.out, limit, everything)


def outliers(
    ctx: typer.Context,
    by: Annotated[Cost, typer.Option("--by", help="What they are ordered by.")] = Cost.TOTAL,
    limit: LimitOption = None,
    everything: AllOption = False,
) -> None:
    """Show the statements that cost the server most, as pg_stat_statements counts them.

    Constants are folded, times are of the server, all callers together. Where the extension is
    missing the exit code is 6, and it is told how it gets there. A table shows the first 20.
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
    context.out.rows(OUTLIER_COLUMNS, rows, empty="No statement has been counted yet.")
    since = f" since {_moment(found.since)}" if found.since else ""
    context.out.info(f"{len(rows)} of {found.seen} statements, counted{since}")
    tell_hidden(context.out, found.rights, found.hidden, "statements of other users: their text")


_MILLIS = ("total_ms", "mean_ms", "max_ms", "read_ms")
_BYTES = ("read_bytes", "temp_bytes")


def sizes(ctx: typer.Context, limit: LimitOption = None, everything: AllOption = False) -> None:
    """Show how big each table is, the biggest first: rows, long values (toast) and indexes.

    The rows are the server's estimate. What somebody locks is estimated, and said to be. A table
    shows the first 20.
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
    context.out.rows(columns, rows, empty="There are no tables.")
    tables = counted(len(found.tables), "table")
    context.out.info(f"{len(rows)} of {tables}; the database: {size_text(found.database)}")
    guessed = sorted(table.table for table in found.tables if table.estimated)
    tell_left_out(context.out, guessed, "estimated")


def indexes(
    ctx: typer.Context,
    only: Annotated[
        list[Kind] | None, typer.Option("--only", help="Only findings of this kind; repeatable.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Missing indexes of small tables, too.")
    ] = False,
) -> None:
    """Show indexes that are invalid, duplicate, covered by another or unused, and missing ones.

    Missing are those for foreign keys of tables with more than 10,000 rows. Unused are those of
    more than 40 kB that no query used since the server's counts began, unique ones left out.
    Nothing is changed: the last column is the statement that would. The exit code is 0 whatever is
    found.
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
        empty=f"Nothing was found; {found.seen} indexes were looked at.",
    )
    tell_steps(context.out, [finding.step for finding in shown])
    if any(finding.finding.value == Kind.UNUSED.value for finding in shown):
        since = f"since {_moment(found.since)}" if found.since else "since the server was made"
        context.out.info(f"uses are counted {since}, and on this server only, not on its standbys")
    if small := len(asked) - len(shown):
        context.out.info(f"{small} missing on small tables are not shown; --all shows them")
    tell_left_out(context.out, found.left_out, "left out")


def _index_row(context: AppContext, finding: IndexFinding) -> dict[str, Any]:
    columns = [column or "(expression)" for column in finding.columns]
    return {
        **vars(finding),
        "columns": ", ".join(columns) if context.out.chosen_form == "table" else columns,
        "size": bytes_text(context.out, finding.size),
    }


def bloat(ctx: typer.Context, limit: LimitOption = None, everything: AllOption = False) -> None:
    """Estimate the space that tables and indexes take and do not need, the most first.

    It rests on the planner's statistics and reads no table; small tables are told roughly. The last
    column is the statement that would give the space back, where more than 10 MB and 40 % of it are
    wasted. A table shows the first 20.
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
        empty="There are no tables.",
    )
    tell_steps(context.out, [item.step for item in shown if item.is_bloated])
    if found.unknown:
        context.out.warn(
            f"{found.unknown} of {len(found.items)} tables and indexes have no statistics, or none "
            f"that the user {found.rights.user} may see"
        )
        context.out.hint("Run ANALYZE; and look as a user who may read the tables.")
    tell_left_out(context.out, found.left_out, "left out")


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
        typer.Argument(metavar="[WORD]...", help="Those whose names hold one of these words."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every setting.")] = False,
) -> None:
    """Show the server's settings that matter or were changed, and what is odd in them.

    They are as a new session of this user gets them, without what this program sets for itself.
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
        context.out.warn(f"hidden from the user {found.rights.user}: what only administrators see")
        context.out.hint(f"Have an administrator run: {found.rights.cure}")


def register(app: typer.Typer) -> None:
    """Add the commands to their group."""
    app.command(
        epilog=examples("aspencli db outliers", "aspencli --env prod db outliers --by mean -o json")
    )(outliers)
    app.command(epilog=examples("aspencli db sizes", "aspencli db sizes --all -o csv"))(sizes)
    app.command(
        epilog=examples("aspencli db indexes", "aspencli db indexes --only missing -o json")
    )(indexes)
    app.command(epilog=examples("aspencli db bloat", "aspencli db bloat --limit 5"))(bloat)
    app.command(epilog=examples("aspencli db settings", "aspencli db settings timeout work_mem"))(
        settings
    )
