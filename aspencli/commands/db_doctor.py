"""``aspencli db doctor``: a full health check of a database."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from aspencli.cli import examples
from aspencli.context import AppContext, current
from aspencli.output.console import Output
from aspencli.output.rendering import Column
from aspencli.output.text import visible

if TYPE_CHECKING:
    from aspencli.services.diagnostics.findings import Examined

COLUMNS = (
    Column("verdict", "Verdict", whole=True),
    Column("check", "Check", whole=True),
    Column("message", "Found"),
    Column("step", "Next step"),
    Column("details", "Details", secondary=True),
)
_STYLES = {"ok": "done", "note": "hint", "unknown": "warn", "warning": "warn", "problem": "error"}
_WIDEST = len("transaction ids")  # the longest name of a check
_MARGIN = " " * (len("problem ") + 2 + _WIDEST + 2)
_NARROW_MARGIN = " " * 4
_WIDE = 72  # terminal width from which messages get a column of their own
_NARROWEST = 24  # minimum characters per line after the margin, even on a narrower terminal


def doctor(
    ctx: typer.Context,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 for warnings, and what is hidden, too.")
    ] = False,
) -> None:
    """Look at everything, read-only: a verdict and a next step for each check.

    Verdicts: ok, note, unknown (not this user's to see, or no answer in time), warning, problem.
    The exit code is 1 when there is a problem, else 0; with --strict also for a warning or an
    unknown.
    """
    from aspencli.services.diagnostics.doctor import examine

    context = current(ctx)
    database = context.database()
    with context.out.progress("Examining"):
        found = list(examine(database))
    found.sort(key=lambda one: -one.verdict.weight)
    if context.out.chosen_form == "table":
        context.out.text("\n".join(line for one in found for line in _lines(context.out, one)))
    else:
        rows = [{**vars(one), "details": list(one.details)} for one in found]
        context.out.rows(COLUMNS, rows)
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
    from aspencli.services.diagnostics.findings import Verdict

    worst = found[0]
    counts = [(v.value, sum(one.verdict is v for one in found)) for v in reversed(Verdict)]
    summary = ", ".join(f"{count} {word}" for word, count in counts if count)
    where = f"{context.target.label}: {summary}"
    if worst.verdict.weight <= Verdict.NOTE.weight:
        context.out.done(where)
        return False
    context.out.warn(f"{where}; {worst.check}: {worst.message}")
    if worst.step:
        context.out.hint(worst.step)
    least = Verdict.UNKNOWN if strict else Verdict.PROBLEM
    return worst.verdict.weight >= least.weight


def register(app: typer.Typer) -> None:
    """Add the command to its group."""
    app.command(
        epilog=examples("aspencli db doctor", "aspencli --env prod db doctor --strict -o json")
    )(doctor)
