"""The columns that ``--columns`` chooses, checked before the command does anything."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from aspencli.cli.output.formats import Column, NamedRow, Row, as_mapping
from aspencli.errors import JSON_FORMATS, BadInputError
from aspencli.text import nearest

if TYPE_CHECKING:
    from aspencli.cli.context import Options
    from aspencli.cli.output.console import Output
    from aspencli.cli.output.formats import Results


def prepare(out: Output, results: Results | None, options: Options, command: str) -> None:
    """Apply ``--columns``, ``--jq``, and ``--template``, before the command does anything.

    Raises:
        BadInputError: They contradict each other, or do not fit what the command prints.
    """
    columns, jq, template = (options[name] for name in ("columns", "jq", "template"))
    given = [f"--{name}" for name in ("columns", "jq", "template") if options[name] is not None]
    if template is not None and len(given) > 1:
        raise BadInputError(f"{given[0]} and --template cannot be combined.", hint="Pass one.")
    form = options["output"]
    if columns is None or jq is not None:
        if form not in {None, *JSON_FORMATS}:
            raise BadInputError(
                f"{given[-1]} cannot be combined with --output {form}.", hint="Omit --output."
            )
        out.form = form or JSON_FORMATS[0]
    if columns is not None:
        out.columns = choose_columns(results, columns, command, out.chosen_form)
    if jq is not None:
        from aspencli.cli.output.filters import jq_for

        out.filter = jq_for(results, jq, command, by_row=out.form == "jsonl")
    if template is not None:
        from aspencli.cli.output.filters import template_for

        out.filter = template_for(results, template, command)


def choose_columns(
    results: Results | None, given: str, command: str, form: str
) -> tuple[Column, ...]:
    """Return the columns with the given names, which are separated by commas.

    Raises:
        BadInputError: The command has no such column, or prints no rows in this format.
    """
    if results and results.document is not None and form in {"json", "jsonl"}:
        raise BadInputError(
            f"--columns does not apply to {command} with --output {form}, which prints one object.",
            hint="Select its parts with --jq.",
        )
    known = {column.key: column for column in results.columns()} if results else {}
    if not known:
        raise BadInputError(
            f"--columns does not apply to {command}, which prints no rows.",
            hint="Omit --columns.",
        )
    names = [name.strip() for name in given.split(",")]
    _check(names, list(known))
    # A column that was asked for is neither hidden nor left out on a narrow terminal.
    return tuple(replace(known[name], secondary=False, retired=False) for name in names)


def _check(names: Sequence[str], known: Sequence[str]) -> None:
    listed = f"Choose from: {', '.join(known)}."
    if "" in names:
        raise BadInputError("Invalid value for --columns: a name is empty.", hint=listed)
    unknown = [name for name in dict.fromkeys(names) if name not in known]
    if unknown:
        near = nearest(unknown[0], known)[:1]
        lead = f"Did you mean {near[0]}? " if near else ""
        kind = "column" if len(unknown) == 1 else "columns"
        raise BadInputError(f"Unknown {kind}: {', '.join(unknown)}", hint=lead + listed)
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise BadInputError(
            f"Invalid value for --columns: {twice} was given twice.", hint="Give each name once."
        )


def chosen(
    wanted: Sequence[Column], columns: Sequence[Column], rows: Iterable[Row | NamedRow]
) -> tuple[Sequence[Column], Iterable[Row | NamedRow]]:
    """Return the wanted columns, and the rows with values for each of them.

    ``columns`` are those that the command prints this time: a plan lacks some of the result's, and
    their values are then missing.
    """
    here = {column.key: column for column in columns}
    found = [replace(here.get(c.key, c), secondary=False, retired=False) for c in wanted]
    lacking = [column.key for column in wanted if column.key not in here]
    if lacking:
        rows = _completed(rows, dict.fromkeys(lacking))
    return found, rows


def _completed(rows: Iterable[Row | NamedRow], missing: Row) -> Iterator[Row]:
    for row in rows:
        yield {**missing, **as_mapping(row)}


def completions(results: Results | None, incomplete: str) -> list[str]:
    """Return how the last of the names may go on, after those that are complete."""
    before, comma, last = incomplete.rpartition(",")
    taken = set(before.split(","))
    names = [column.key for column in results.columns()] if results else []
    return [before + comma + n for n in names if n.startswith(last) and n not in taken]
