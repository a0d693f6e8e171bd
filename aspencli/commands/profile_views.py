"""Presentation of a profile on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aspencli.output.console import Output
from aspencli.output.rendering import Column
from aspencli.output.text import counted, visible

if TYPE_CHECKING:
    from db.profiling.documents import Change
    from db.profiling.summary import Profile, Statement

COLUMNS = (
    Column("calls", "Calls", right=True),
    Column("total_ms", "Total ms", right=True),
    Column("mean_ms", "Mean", right=True),
    Column("p50_ms", "p50", right=True, secondary=True),
    Column("p95_ms", "p95", right=True),
    Column("max_ms", "Max", right=True, secondary=True),
    Column("fetch_ms", "Fetch", right=True, secondary=True),
    Column("rows", "Rows", right=True),
    Column("share", "Share", right=True),
    Column("flags", "Flags"),
    Column("line", "Line"),
    Column("query", "Statement"),
)
CHANGES = (
    Column("verdict", "Verdict"),
    Column("calls_before", "Calls before", right=True),
    Column("calls_after", "After", right=True),
    Column("total_ms_before", "ms before", right=True),
    Column("total_ms_after", "After", right=True),
    Column("query", "Statement"),
)
_SHOWN = 300  # characters of a statement in a table
_SPENT_MS = 0.05  # shorter times are not shown
_DIGITS = 3  # decimal places in machine-readable output: microseconds


def show(
    out: Output, profile: Profile, statements: Sequence[Statement], *, parameters: bool
) -> None:
    """Show the totals and the statements, followed by warnings."""
    people = out.chosen_form == "table"
    if people:
        out.text(totals_text(profile))
    out.rows(COLUMNS, [_row(one, people=people) for one in statements], empty="No query ran.")
    for number, one in enumerate(statements, 1):
        for flag in one.flags:
            out.warn(f"{flag.name}: {visible(flag.text)} ({short_place(one)})")
            if flag.cure:
                out.hint(visible(flag.cure))
        if parameters and one.example.parameters:
            from db.profiling.plans import hide_secrets

            out.info(f"{number}: parameters {visible(repr(hide_secrets(one.example.parameters)))}")
        if one.plan:
            out.info(visible_lines(f"{number}: plan", plan_lines(one.plan["Plan"])))


def totals_text(profile: Profile) -> str:
    """Return the number of queries, and the time spent by category, longest first."""
    totals = profile.totals
    queries = f"{totals.queries:,} {'query' if totals.queries == 1 else 'queries'}"
    failed = f", {totals.failed:,} failed" if totals.failed else ""
    parts = {
        "database": totals.execute_ms,
        "fetching": totals.fetch_ms,
        "commit and rollback": totals.ending_ms,
        "waiting for connections": totals.waiting_ms,
        "Python": totals.python_ms,
    }
    spent = [f"{name} {took:,.1f} ms" for name, took in _falling(parts) if took >= _SPENT_MS]
    return (
        f"{queries} ({counted(totals.distinct, 'kind')}{failed}), "
        f"{counted(totals.rows, 'row')}, {counted(totals.transactions, 'transaction')} "
        f"in {totals.wall_ms:,.1f} ms\n{', '.join(spent)}"
    )


def _falling(parts: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(parts.items(), key=lambda part: -part[1])


def _row(one: Statement, *, people: bool) -> dict[str, Any]:
    numbers = {column.key: getattr(one, column.key) for column in COLUMNS[:8]}
    shown = {
        name: (f"{value:,.2f}" if people else round(value, _DIGITS))
        for name, value in numbers.items()
        if isinstance(value, float)
    }
    text = one.key.fingerprint
    return {
        **numbers,
        **shown,
        "share": f"{one.share:.0%}" if people else round(one.share, _DIGITS),
        "flags": ", ".join(flag.name for flag in one.flags),
        "line": short_place(one, whole=not people),
        "query": text[:_SHOWN] + "…" * (len(text) > _SHOWN) if people else text,
    }


def short_place(one: Statement, *, whole: bool = True) -> str:
    """Return the calling line, relative to the current folder if it is inside.

    Args:
        one: Statement.
        whole: Whether to show the full path of a file outside the folder, or only its name.
    """
    path = Path(one.key.file)
    if path.is_relative_to(Path.cwd()):
        return f"{path.relative_to(Path.cwd())}:{one.key.line}"
    return one.place if whole or not path.is_absolute() else f"{path.name}:{one.key.line}"


def plan_lines(node: dict[str, Any], depth: int = 0) -> Iterable[str]:
    """Yield the nodes of a plan, one per line."""
    name = " ".join(
        filter(None, [node["Node Type"], node.get("Relation Name"), node.get("Index Name")])
    )
    actual = ""
    if "Actual Total Time" in node:
        actual = f", {node['Actual Rows']:,.0f} found in {node['Actual Total Time']:.2f} ms"
    yield f"{'  ' * depth}{name}: {node['Plan Rows']:,} rows expected{actual}"
    for below in node.get("Plans", ()):
        yield from plan_lines(below, depth + 1)


def visible_lines(head: str, lines: Iterable[str]) -> str:
    """Return lines below a heading, without terminal control characters."""
    return "\n".join([head, *(f"  {visible(line)}" for line in lines)])


def show_changes(out: Output, changes: Sequence[Change]) -> None:
    """Show which statements got faster or slower."""
    out.rows(
        CHANGES,
        [
            {
                "verdict": one.verdict + (", n+1 gone" if one.cured else ""),
                "calls_before": one.calls[0],
                "calls_after": one.calls[1],
                "total_ms_before": round(one.total_ms[0], 2),
                "total_ms_after": round(one.total_ms[1], 2),
                "query": one.fingerprint[:_SHOWN],
            }
            for one in changes
        ],
        empty="Nothing ran, before or after.",
    )
