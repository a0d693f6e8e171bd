"""The report of ``db profile``: on the screen, as JSON, and as an HTML page."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aspencli import files
from aspencli.cli.context import AppContext
from aspencli.cli.output.console import Output
from aspencli.cli.output.formats import Column
from aspencli.cli.output.sql_summary import one_line
from aspencli.config import Safety
from aspencli.errors import AspenError, BadInputError
from aspencli.text import counted, visible

if TYPE_CHECKING:
    from aspen.database.profiling.budgets import Limit
    from aspen.database.profiling.recorder import Recorder
    from aspen.database.profiling.report import Difference
    from aspen.database.profiling.summary import Profile, Statement


COLUMNS = (
    Column("calls", "Calls", right=True, of=int),
    Column("total_ms", "Total ms", right=True, of=float),
    Column("mean_ms", "Mean", right=True, of=float),
    Column("p50_ms", "p50", right=True, secondary=True, of=float),
    Column("p95_ms", "p95", right=True, of=float),
    Column("max_ms", "Max", right=True, secondary=True, of=float),
    Column("fetch_ms", "Fetch", right=True, secondary=True, of=float),
    Column("rows", "Rows", right=True, of=int),
    Column("share", "Share", right=True, of=float),
    Column("flags", "Flags", of=str),
    Column("line", "Line", of=str),
    Column("query", "Statement", sql=True, of=str),
)
CHANGES = (
    Column("verdict", "Verdict", of=str),
    Column("calls_before", "Calls before", right=True, of=int),
    Column("calls_after", "After", right=True, of=int),
    Column("total_ms_before", "ms before", right=True, of=float),
    Column("total_ms_after", "After", right=True, of=float),
    Column("query", "Statement", sql=True, of=str),
)
_SHOWN = 300  # characters of a statement in a comparison for programs
_SPENT_MS = 0.05  # shorter times are not shown
_DIGITS = 3  # decimal places in machine-readable output: microseconds
_PLANS = 5  # statements with a plan, at most


@dataclass(frozen=True)
class ReportOptions:
    """The options of a report."""

    top: int
    min_ms: float
    parameters: bool
    plans: bool
    analyze: bool  # run SELECTs again for the plans, even on production
    before: dict[str, Any] | None  # an earlier profile to compare with
    page: Path | None
    limits: list[Limit]
    interrupted: bool = False

    def after_interrupt(self) -> ReportOptions:
        """Return the options for interrupted work: nothing is rerun, and no limit is enforced."""
        return replace(self, plans=False, limits=[], interrupted=True)


def limits_of(text: str | None) -> list[Limit]:
    """Return the limits of a budget.

    Raises:
        BadInputError: If the budget cannot be parsed.
    """
    if text is None:
        return []
    from aspen.database.profiling.budgets import parse_budget

    try:
        return parse_budget(text)
    except ValueError as error:
        raise BadInputError(f"--budget: {error}") from error


def earlier(path: Path | None) -> dict[str, Any] | None:
    """Return the profile to compare with, read before anything runs.

    Raises:
        BadInputError: If the file is not a profile.
    """
    if path is None:
        return None
    from aspen.database.profiling.report import compare

    try:
        found = json.loads(read_file(path))
    except json.JSONDecodeError as error:
        raise BadInputError(f"{path} is not valid JSON: {error}") from error
    try:
        if not isinstance(found, dict):
            raise TypeError("not a JSON object")
        compare(found, found)
    except (ValueError, KeyError, TypeError) as error:
        raise BadInputError(
            f"--compare: {path} is not a profile: {error}", hint="Create one with --output json."
        ) from error
    return found


def read_file(path: Path) -> str:
    """Return the text of an input file, without a byte-order mark.

    Raises:
        BadInputError: It cannot be read, or is not text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise BadInputError(
            f"Could not read {path}: {error.strerror}", hint="Check the file name."
        ) from error
    except UnicodeDecodeError as error:
        raise BadInputError(
            f"{path} is not UTF-8 text (byte {error.start + 1}).", hint="Save it as UTF-8."
        ) from error
    if "\0" in text:
        raise BadInputError(f"{path} is not text: it contains NUL bytes.", hint="Save it as UTF-8.")
    return text


def page_file(path: Path | None) -> Path | None:
    """Return the path of the HTML page, checked before anything runs.

    Raises:
        BadInputError: If no file can be written there.
    """
    if path is not None and (path.is_dir() or not path.parent.is_dir()):
        what = "is a folder" if path.is_dir() else "is in a folder that does not exist"
        raise BadInputError(f"--html: {path} {what}", hint="Choose a file in an existing folder.")
    return path


def tell(context: AppContext, recorder: Recorder | None, what: str, wanted: ReportOptions) -> None:
    """Report what was recorded: print it first, then write the HTML page.

    Raises:
        AspenError: If the page cannot be written, or a limit is exceeded.
    """
    from aspen.database.profiling.budgets import broken
    from aspen.database.profiling.report import as_document
    from aspen.database.profiling.summary import summarize

    if recorder is None:
        raise AspenError("Nothing was run")
    found = summarize(recorder)
    if wanted.plans:
        _explain(context, found, wanted)
    document = as_document(found, what, parameters=wanted.parameters)
    document["interrupted"] = wanted.interrupted
    _show(context, found, document, wanted)
    if wanted.page is not None:
        _write_page(context, found, document, wanted.page)
    if problems := broken(wanted.limits, found):
        raise AspenError("Budget exceeded: " + "; ".join(problems))


def _explain(context: AppContext, found: Profile, wanted: ReportOptions) -> None:
    from aspen.database.profiling.plans import explain_slowest

    analyze = wanted.analyze or context.target.safety is not Safety.PRODUCTION
    count = min(wanted.top, _PLANS)
    for one, why in explain_slowest(found, context.database(), count=count, analyze=analyze):
        context.out.warn(f"No plan for {one.key.fingerprint[:60]}: {why}")


def _show(
    context: AppContext, found: Profile, document: dict[str, Any], wanted: ReportOptions
) -> None:
    from aspen.database.profiling.report import compare

    out = context.out
    if wanted.before is not None:
        if wanted.interrupted or wanted.before.get("interrupted"):
            which = "This run" if wanted.interrupted else "The earlier run"
            out.warn(f"{which} was interrupted; queries that it did not reach are not compared.")
        return show_changes(out, compare(wanted.before, document))
    if out.chosen_form in {"json", "jsonl"}:
        return out.document(document)
    chosen = [one for one in found.statements if one.total_ms + one.fetch_ms >= wanted.min_ms]
    return show(out, found, chosen[: wanted.top], parameters=wanted.parameters)


def _write_page(context: AppContext, found: Profile, document: dict[str, Any], path: Path) -> None:
    from aspen.database.profiling.report import as_page

    try:
        files.write_whole(path, as_page(found, document))
    except OSError as error:
        raise AspenError(f"Cannot write the report to {path}: {error.strerror}") from error
    context.out.info(f"Wrote the report to {path}")


def show(
    out: Output, profile: Profile, statements: Sequence[Statement], *, parameters: bool
) -> None:
    """Show the totals and the statements, followed by warnings."""
    people = out.chosen_form == "table"
    if people:
        out.text(totals_text(profile))
    out.rows(COLUMNS, [_row(one, people=people) for one in statements], empty="No queries ran.")
    for number, one in enumerate(statements, 1):
        for flag in one.flags:
            out.warn(f"{flag.name}: {visible(flag.text)} ({short_place(one)})")
            if flag.cure:
                out.hint(visible(flag.cure))
        if parameters and one.example.parameters:
            from aspen.database.profiling.plans import hide_secrets

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
    falling = sorted(parts.items(), key=lambda part: -part[1])
    spent = [f"{name} {took:,.1f} ms" for name, took in falling if took >= _SPENT_MS]
    return (
        f"{queries} ({totals.distinct:,} distinct{failed}), "
        f"{counted(totals.rows, 'row')}, {counted(totals.transactions, 'transaction')} "
        f"in {totals.wall_ms:,.1f} ms\n{', '.join(spent)}"
    )


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
        "query": one_line(text) if people else text,
    }


def short_place(one: Statement, *, whole: bool = True) -> str:
    """Return the calling line, relative to the current folder if inside; else `whole`, or short."""
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


def show_changes(out: Output, changes: Sequence[Difference]) -> None:
    """Show which statements got faster or slower."""
    people = out.chosen_form == "table"
    out.rows(
        CHANGES,
        [
            {
                "verdict": one.verdict + (", n+1 fixed" if one.cured else ""),
                "calls_before": one.calls[0],
                "calls_after": one.calls[1],
                "total_ms_before": round(one.total_ms[0], 2),
                "total_ms_after": round(one.total_ms[1], 2),
                "query": one_line(one.fingerprint) if people else one.fingerprint[:_SHOWN],
            }
            for one in changes
        ],
        empty="No queries ran in either profile.",
    )
