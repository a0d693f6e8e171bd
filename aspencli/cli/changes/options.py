"""Options shared by the commands that change data, and functions to interpret them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aspencli.changes.report import JobFiles
from aspencli.cli import params
from aspencli.cli.context import AppContext, Backend
from aspencli.errors import BadInputError

if TYPE_CHECKING:
    from aspencli.cli.changes.runner import BulkJob, Purpose
    from aspencli.cli.output.console import Output
    from aspencli.tabular.source import Observer
    from aspencli.tabular.table import Table


_DELIMITERS = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|"}

GroupId = Annotated[
    int | None, typer.Option("--group-id", metavar="ID", help="Submitting group. Default: --org.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print the full plan to stdout without writing anything.")
]
Report = Annotated[
    Path | None,
    typer.Option(
        "--report",
        metavar="FILE",
        help="Write each row and its outcome to a file: .csv, .json, or .xlsx.",
    ),
]
UndoFile = Annotated[
    Path | None,
    typer.Option("--undo-file", metavar="FILE", help="Path of the undo file; must not exist."),
]
ClearWord = Annotated[
    str | None,
    params.text_option("Cell value that clears a field, in addition to \\N.", metavar="WORD"),
]
MissingWords = Annotated[
    bool,
    typer.Option(
        "--allow-missing-words", help="Accept words such as NA, NULL, or unknown as identifiers."
    ),
]
TemplateName = Annotated[
    str,
    typer.Option(
        "--template",
        metavar="NAME",
        help="Template of the file: czgenepi-edit, czgenepi-upload, gisaid, nextstrain, none, or "
        "auto (detected from the header).",
    ),
]
DateFormat = Annotated[
    str | None,
    params.text_option(
        "Date format in addition to YYYY-MM-DD, such as DD.MM.YYYY or M/D/YY.", metavar="FORMAT"
    ),
]


@dataclass(frozen=True, kw_only=True)
class ReadingOptions:
    """The options of every command that reads a table."""

    names: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="HEADER=COLUMN|@MAP",
            help="Map a header to a column: 'Lab ID=private_identifier'. 'Note=' ignores a column; "
            "@NAME uses a map from the config file. Can be repeated.",
        ),
    ] = None
    encoding: Annotated[str | None, params.text_option("Encoding of the file, if not UTF-8.")] = (
        None
    )
    delimiter: Annotated[str | None, params.text_option("Column delimiter. Default: detected.")] = (
        None
    )
    sheet: Annotated[
        str | None, params.text_option("Sheet of a workbook to read.", metavar="NAME|NUMBER")
    ] = None
    skip_lines: Annotated[
        int,
        typer.Option(min=0, metavar="N", help="Number of lines or rows before the header."),
    ] = 0
    missing_words: MissingWords = False


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """The options of every command that changes rows, or undoes that."""

    dry_run: DryRun = False
    report: Report = None
    undo_file: UndoFile = None


@dataclass(frozen=True, kw_only=True)
class BulkOptions(ReadingOptions, OutputOptions):
    """The options of every command that changes rows from a file."""

    rejects: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write invalid rows to a file that you can fix and pass again: .csv, .tsv, or "
            ".xlsx.",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class UndoOptions(OutputOptions):
    """The run to undo, and how."""

    what: Annotated[
        str,
        typer.Argument(help="Run id from `aspencli history`, or an undo file.", metavar="ID|FILE"),
    ]
    force: Annotated[
        bool,
        typer.Option("--force", help="Also revert values changed since; they are shown first."),
    ] = False


@contextmanager
def opened_table(
    context: AppContext,
    path: str,
    given: ReadingOptions,
    template: str,
    observe: Observer | None = None,
) -> Iterator[tuple[Table, int]]:
    """Provide a table read as the options say, and the number of notes printed about it."""
    from aspencli.tabular.reading import open_table

    with open_table(
        path,
        observe,
        encoding=given.encoding,
        delimiter=chosen_delimiter(given.delimiter),
        sheet=given.sheet,
        skip_lines=given.skip_lines,
        template=template,
    ) as source:
        yield source, print_notes(context.out, source)


def chosen_names(context: AppContext, given: list[str] | None) -> list[str]:
    """Return the values of ``--map``, with saved maps expanded.

    Raises:
        BadInputError: The config file has no map with that name.
    """
    from aspencli.tabular.table import SavedName

    names: list[str] = []
    for words in given or ():
        if words.startswith("@") and "=" not in words:
            saved = context.config.column_map(words[1:])
            names += [SavedName(f"{header}={column}") for header, column in saved.items()]
        else:
            names.append(words)
    return names


def chosen_group_id(context: AppContext, given: int | None) -> int:
    """Return the group of a run: from its own option, else from the global ``--org``.

    Raises:
        BadInputError: If neither is given, or it is not a number.
    """
    if given is not None:
        return given
    found = context.config.setting("org")
    if found.value is None:
        raise BadInputError(
            "No group was given.", hint="Pass --group-id ID; see: aspencli groups list"
        )
    try:
        return int(found.value)
    except ValueError:
        raise BadInputError(
            f"Invalid group id: {found.value!r} (from {found.source})",
            hint="Use a number; see: aspencli groups list",
        ) from None


def chosen_delimiter(word: str | None) -> str | None:
    """Return the delimiter, given as a character or by name; None to detect it.

    Raises:
        BadInputError: If it cannot be a delimiter.
    """
    found = _DELIMITERS.get(word, word) if word else None
    if found is not None and (len(found) != 1 or found in '"\r\n '):
        raise BadInputError(
            f"Invalid value for --delimiter: {word!r}",
            hint="Use comma, semicolon, tab, pipe, or any other single character.",
        )
    return found


def print_notes(out: Output, source: Table, said: int = 0) -> int:
    """Print the notes about the file not printed so far, and return the number of all notes."""
    for note in source.notes[said:]:
        out.info(f"Note: {note}.")
    return len(source.notes)


def open_job(
    context: AppContext,
    stack: ExitStack,
    group_id: int | None,
    files: JobFiles,
    purpose: Purpose,
    backend: Backend,
) -> BulkJob[Any]:
    """Return the job for a backend; see `aspencli.cli.changes.runner.BulkJob`.

    Raises:
        BadInputError: The API does not support the change.
    """
    context.announce(backend)
    if backend is Backend.API and group_id is not None:
        from aspencli.cli.changes.remote import ApiJob, RestoreJob

        if purpose.spec.is_plain:
            return ApiJob(context, stack, group_id, files, purpose)
        if purpose.spec.expects:
            return RestoreJob(context, stack, group_id, files, purpose)
        raise BadInputError(
            "The API only supports bulk updates of public identifiers.",
            hint="Use the database instead: add --via db",
        )
    from aspencli.cli.changes.runner import DatabaseJob

    return DatabaseJob(context, stack, group_id, files, purpose)


def parse_day(context: AppContext, name: str, said: str) -> str:
    """Return a date in the API's format, and print how it was understood if it was not exact."""
    from aspencli.tabular.dates import understand_day

    found = understand_day(said)
    words = name.replace("_", " ")
    if not found.is_exact:
        context.out.info(f'{words[0].upper()}{words[1:]}: "{found.said}" -> {found.day}')
    if found.day > dt.datetime.now().astimezone().date():
        context.out.info(f"Note: {words} {found.day} is in the future.")
    return found.day.isoformat()
