"""``aspencli db activity``, ``bloat`` and so on, ``cancel``, ``terminate``, and ``doctor``.

There is a command for each of `aspencli.diagnostics`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from inspect import Parameter, Signature
from types import GenericAlias
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aspencli.cli import watching
from aspencli.cli.app import examples
from aspencli.cli.context import AppContext, current
from aspencli.cli.output.console import Output
from aspencli.cli.output.formats import OUTCOME, Column, Row, prints
from aspencli.cli.output.sql_summary import one_line
from aspencli.cli.params import AllOption, DryRunOption, LimitOption, chosen_limit
from aspencli.cli.watching import WatchOption
from aspencli.diagnostics import (
    LIMIT,
    Diagnostic,
    Examined,
    Option,
    Report,
    Severity,
    Shown,
    activity,
    diagnostics,
)
from aspencli.diagnostics.activity import Signal, SignalOutcome, VisibleSession
from aspencli.diagnostics.doctor import examine
from aspencli.diagnostics.session import looking, patient
from aspencli.errors import AspenError
from aspencli.text import counted, duration_text, size_text, visible

if TYPE_CHECKING:
    from aspen.database.engine import Database

_WATCHED = "Sessions"  # the panel of the diagnostics that can be watched
_SHORT = 20  # rows of a table by default
_SECOND = 1_000  # milliseconds
# What the values are, by the words of a column; any of them may be missing.
_TYPES: dict[str, Any] = {
    "list": list[Any],
    "flag": bool,
    "seconds": float,
    "millis": float,
    "share": float,
    "bytes": int,
    "right": int,
    "number": int,
}
_RIGHT = frozenset({"right", "seconds", "millis", "bytes", "share"})


def register(app: typer.Typer, panel: str) -> None:
    """Add the commands of a panel to their group."""
    for name, diagnostic in diagnostics().items():
        if diagnostic.panel == panel:
            app.command(name, rich_help_panel=panel, epilog=examples(*diagnostic.examples))(
                _command(diagnostic)
            )


def _command(diagnostic: Diagnostic) -> Callable[..., None]:
    def command(ctx: typer.Context, **given: Any) -> None:
        context = current(ctx)
        seconds = given.pop("watch", None)
        if LIMIT in diagnostic.options:
            given["limit"] = _limit(context, given["limit"], given.pop("everything"))
        if seconds is not None:
            return _watch(context, diagnostic, seconds, given)
        with (diagnostic.opens or looking)(context.database()) as session:
            report = diagnostic.report(session, **given)
        return _show(context.out, diagnostic.columns, report)

    parameters = [_parameter("ctx", typer.Context, Parameter.empty)]
    for option in diagnostic.options:
        parameters += _parameters(option)
    if diagnostic.panel == _WATCHED:
        parameters.append(_parameter("watch", WatchOption, None))
    # Typer reads the parameters from these.
    vars(command)["__signature__"] = Signature(parameters)
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    command.__doc__ = diagnostic.report.__doc__
    return prints(tuple(_column(*each) for each in diagnostic.columns))(command)


def _watch(
    context: AppContext, diagnostic: Diagnostic, seconds: float, given: dict[str, Any]
) -> None:
    """Show a report again and again, over one connection."""
    database = patient(context.database())

    def show(out: Output) -> None:
        with database.observing() as session:
            report = diagnostic.report(session, **given)
        _show(out, diagnostic.columns, report)

    title = f"{diagnostic.report.__name__} of {context.target.title}".capitalize()
    try:
        watching.shown(context.out, seconds, show, title=title)
    finally:
        database.dispose()


def _parameters(option: Option) -> Iterator[Parameter]:
    if option is LIMIT:
        yield _parameter("limit", LimitOption, None)
        yield _parameter("everything", AllOption, False)
        return
    # Typer takes lists of enums, but not of literals.
    kind: Any = (
        StrEnum("Choice", {each: each for each in option.choices}) if option.choices else str
    )
    default: Any = None
    if option.several:
        kind = GenericAlias(list, kind) | None
    elif option.choices:
        default = option.choices[0]
    else:
        kind, default = bool, False
    given: Any = typer.Option(option.name, help=option.help)
    if option.name.startswith("["):
        given = typer.Argument(metavar=option.name, help=option.help)
    yield _parameter(option.parameter, Annotated[kind, given], default)


def _parameter(name: str, annotation: Any, default: Any) -> Parameter:
    return Parameter(name, Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


def _limit(context: AppContext, limit: int | None, everything: bool) -> int | None:
    if limit is None and not everything and context.out.chosen_form == "table":
        return _SHORT
    return chosen_limit(context.out, limit, everything)


def _show(out: Output, columns: Sequence[tuple[str, str, str]], report: Report) -> None:
    people = out.chosen_form == "table"
    unwanted = {key for key, _, words in columns if "omit" in words} | set(report.without)
    out.rows(
        [_column(*each) for each in columns if not (people and each[0] in unwanted)],
        [{key: _shown(out, row[key], words) for key, _, words in columns} for row in report.rows],
        empty=report.empty,
    )
    for kind, message in (*(report.asides if people else ()), *report.notes):
        {"info": out.info, "warn": out.warn, "hint": out.hint}[kind](message)


def _shown(out: Output, value: Any, words: str) -> Any:
    """Return a value as text for a table, and unchanged otherwise; the words say what it is."""
    people = out.chosen_form == "table"
    if isinstance(value, Shown):
        return value.text if people else value.value
    kind = next((word for word in words.split() if word in _TEXTS), None)
    return _TEXTS[kind](value) if people and kind and value is not None else value


def _column(key: str, title: str, words: str) -> Column:
    given = frozenset(words.split())
    return Column(
        key,
        title,
        right=not given.isdisjoint(_RIGHT),
        secondary="secondary" in given,
        whole="whole" in given,
        sql="sql" in given,
        of=next((kind for word, kind in _TYPES.items() if word in given), str) | None,
    )


def _millis(millis: float) -> str:
    return f"{millis:.1f} ms" if millis < _SECOND else duration_text(millis / _SECOND)


_TEXTS: dict[str, Callable[[Any], str]] = {
    "seconds": duration_text,
    "millis": _millis,
    "bytes": size_text,
    "share": "{:.0%}".format,
    "list": lambda values: ", ".join(map(str, values)),
    "sql": one_line,
}


SESSION_COLUMNS = (
    Column("pid", "PID", right=True, whole=True),
    Column("user", "User"),
    Column("application", "Application"),
    Column("client", "Client", secondary=True),
    Column("state", "State"),
    Column("transaction_s", "Transaction", right=True),
    Column("query", "Statement", sql=True),
)
RESULT_COLUMNS = (
    Column("pid", "PID", right=True, whole=True, of=int),
    Column("user", "User"),
    Column("application", "Application"),
    OUTCOME,
    Column("status", "Status"),
)
_PLANNED = {Signal.CANCEL: "update", Signal.TERMINATE: "delete"}
_DONE = {Signal.CANCEL: "updated", Signal.TERMINATE: "deleted"}
_OUTCOMES = {"gone": "unchanged", "idle": "skipped", "pending": "failed"}
Pids = Annotated[
    list[int],
    typer.Argument(metavar="PID...", min=1, help="Server process IDs, as shown by `db activity`."),
]


@prints(RESULT_COLUMNS)
def cancel(ctx: typer.Context, pids: Pids, dry_run: DryRunOption = False) -> None:
    """Cancel the statement that a session is running; the session stays connected.

    Asks for confirmation; on production, --confirm is required. A session that is not running a
    statement is skipped. Statuses: done, gone (it had already ended), idle (nothing to cancel),
    pending (not canceled yet; exit code 1).
    """
    _send(current(ctx), pids, Signal.CANCEL, dry_run=dry_run)


@prints(RESULT_COLUMNS)
def terminate(ctx: typer.Context, pids: Pids, dry_run: DryRunOption = False) -> None:
    """Terminate a session: roll back its open transaction, and close its connection.

    Asks for confirmation; on production, --confirm is required. Only sessions of the target's
    database can be terminated. Statuses: done, gone (it had already ended), pending (not terminated
    yet; exit code 1).
    """
    _send(current(ctx), pids, Signal.TERMINATE, dry_run=dry_run)


def _send(context: AppContext, pids: list[int], signal: Signal, *, dry_run: bool) -> None:
    from aspencli.cli.changes.execute import ItemChange, execute

    database = context.database()
    with looking(database) as session:
        found = activity.find_sessions(session, pids)
    idle = [seen for seen in found if signal is Signal.CANCEL and not seen.may_run]
    _name_idle(context, idle)

    def send() -> Iterator[Sequence[Row]]:
        for seen in found:
            word = "idle" if seen in idle else _send_one(context, database, seen, signal)
            outcome = _OUTCOMES.get(word, _DONE[signal])
            yield [{**vars(seen), "outcome": outcome, "status": word}]

    change = ItemChange(
        context,
        _words(signal, found),
        RESULT_COLUMNS,
        [_planned(seen, signal, is_idle=seen in idle) for seen in found],
        send,
        details=(SESSION_COLUMNS, [_row(context, seen) for seen in found]),
        shows=50,
        ended=_refuse_pending,
    )
    execute(change, dry_run=dry_run)


def _planned(seen: VisibleSession, signal: Signal, *, is_idle: bool) -> Row:
    if is_idle:
        return {**vars(seen), "outcome": "skip", "status": "idle"}
    return {**vars(seen), "outcome": _PLANNED[signal], "status": None}


def _name_idle(context: AppContext, idle: Sequence[VisibleSession]) -> None:
    for seen in idle:
        context.out.warn(f"PID {seen.pid} is {seen.state}; it has no statement to cancel.")
        context.out.hint(f"To terminate the session: aspencli db terminate {seen.pid}")


def _refuse_pending(rows: Sequence[Row]) -> None:
    pending = [str(row["pid"]) for row in rows if row["status"] == "pending"]
    if pending:
        raise AspenError(
            f"The signal was sent, but PID {', '.join(pending)} has not stopped yet",
            hint="Check again in a moment: aspencli db activity",
        )


def _send_one(context: AppContext, database: Database, seen: VisibleSession, signal: Signal) -> str:
    outcome = activity.send(database, seen, signal)
    cancelling = signal is Signal.CANCEL
    if outcome is SignalOutcome.DONE:
        what = "Canceled the statement of" if cancelling else "Terminated"
        context.out.done(f"{what} PID {seen.pid} ({seen})")
    elif outcome is SignalOutcome.GONE:
        what = "its statement" if cancelling else "the session"
        context.out.info(f"PID {seen.pid}: {what} had already ended; nothing was done.")
    return outcome.value


def _words(signal: Signal, found: list[VisibleSession]) -> str:
    who = ", ".join(f"PID {seen.pid} ({seen})" for seen in found)
    return f"cancel the statement of {who}" if signal is Signal.CANCEL else f"terminate {who}"


def _row(context: AppContext, seen: VisibleSession) -> dict[str, object]:
    return {
        **vars(seen),
        "transaction_s": _shown(context.out, seen.transaction_s, "seconds"),
        "query": _shown(context.out, seen.query, "sql"),
    }


FINDING_COLUMNS = (
    Column("verdict", "Severity", whole=True, of=Severity),
    Column("check", "Check", whole=True, of=str),
    Column("message", "Finding", of=str),
    Column("step", "Next step"),
    Column("details", "Details", secondary=True, of=list[str]),
)
_STYLES = {"ok": "done", "note": "hint", "unknown": "warn", "warning": "warn", "problem": "error"}
_WIDEST = len("transaction ids")  # the longest name of a check
_MARGIN = " " * (len("problem ") + 2 + _WIDEST + 2)
_NARROW_MARGIN = " " * 4
_WIDE = 72  # terminal width from which messages get a column of their own
_NARROWEST = 24  # minimum characters per line after the margin, even on a narrower terminal


@prints(FINDING_COLUMNS)
def doctor(
    ctx: typer.Context,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 for warnings and unknowns, too.")
    ] = False,
) -> None:
    """Run all health checks, read-only, with a verdict and a next step for each.

    Verdicts: ok, note, unknown (not visible to this user, or timed out), warning, problem. The exit
    code is 1 if there is a problem, else 0; with --strict, also 1 for warnings and unknowns.
    """
    context = current(ctx)
    database = context.database()
    with context.out.progress("Running checks"):
        found = list(examine(database))
    found.sort(key=lambda one: -one.verdict.weight)
    if context.out.has_layout:
        context.out.text("\n".join(line for one in found for line in _lines(context.out, one)))
    else:
        rows = [{**vars(one), "details": list(one.details)} for one in found]
        context.out.rows(FINDING_COLUMNS, rows)
    if _conclude(context, found, strict=strict):
        raise typer.Exit(1)


def _lines(out: Output, one: Examined) -> Iterator[str]:
    """Yield the lines for one check; unlike table cells, they are never truncated."""
    word = one.verdict.value
    margin = _MARGIN if out.width >= _WIDE else _NARROW_MARGIN
    lead = f"{word:<8}  {one.check:<{_WIDEST}}  "
    first, *more = _wrapped(out, lead + visible(one.message), "", margin)
    yield out.styled(_STYLES.get(word, "dim"), first[: len(word)]) + first[len(word) :]
    yield from more
    for detail in one.details if word != "ok" else ():
        if detail != one.message:
            yield from _wrapped(out, visible(detail), margin + "- ", margin + "  ")
    if one.step:
        for line in _wrapped(out, visible(one.step), margin + "next: ", margin + " " * 6):
            yield out.styled("hint", line)


def _wrapped(out: Output, text: str, first: str, others: str) -> list[str]:
    """Wrap a text to the width, breaking only between words."""
    return textwrap.wrap(
        text,
        max(out.width, len(others) + _NARROWEST),
        initial_indent=first,
        subsequent_indent=others,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _conclude(context: AppContext, found: list[Examined], *, strict: bool) -> bool:
    """Print a one-line summary; return True if the result warrants a nonzero exit code."""
    worst = found[0]
    counts = [(v.value, sum(one.verdict is v for one in found)) for v in reversed(Severity)]
    summary = ", ".join(_tally(word, count) for word, count in counts if count)
    where = f"{context.target.label}: {summary}"
    if worst.verdict.weight <= Severity.NOTE.weight:
        context.out.done(where)
        return False
    context.out.warn(f"{where}; {worst.check}: {worst.message}")
    if worst.step:
        context.out.hint(worst.step)
    least = Severity.UNKNOWN if strict else Severity.PROBLEM
    return worst.verdict.weight >= least.weight


def _tally(verdict: str, count: int) -> str:
    nouns = {"note", "warning", "problem"}
    return counted(count, verdict) if verdict in nouns else f"{count} {verdict}"
