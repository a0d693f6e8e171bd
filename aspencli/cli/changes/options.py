"""Options shared by the commands that change data, and functions to interpret them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, fields
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from aspencli.changes.report import JobFiles
from aspencli.cli.context import AppContext, Backend
from aspencli.errors import BadInputError

if TYPE_CHECKING:
    from aspencli.cli.changes.runner import Job, Purpose
    from aspencli.cli.output.console import Output
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
Rejects = Annotated[
    Path | None,
    typer.Option(
        "--rejects",
        metavar="FILE",
        help="Write invalid rows to a file that you can fix and pass again: .csv, .tsv, or .xlsx.",
    ),
]
UndoFile = Annotated[
    Path | None,
    typer.Option("--undo-file", metavar="FILE", help="Path of the undo file; must not exist."),
]
Encoding = Annotated[
    str | None, typer.Option("--encoding", help="Encoding of the file, if not UTF-8.")
]
Delimiter = Annotated[
    str | None, typer.Option("--delimiter", help="Column delimiter. Default: detected.")
]
Sheet = Annotated[
    str | None,
    typer.Option("--sheet", metavar="NAME|NUMBER", help="Sheet of a workbook to read."),
]
ClearWord = Annotated[
    str | None,
    typer.Option(metavar="WORD", help="Cell value that clears a field, in addition to \\N."),
]
MissingWords = Annotated[
    bool,
    typer.Option(
        "--allow-missing-words", help="Accept words such as NA, NULL, or unknown as identifiers."
    ),
]
Undone = Annotated[
    str,
    typer.Argument(help="Run id from `aspencli history`, or an undo file.", metavar="ID|FILE"),
]
Force = Annotated[
    bool, typer.Option("--force", help="Also revert values changed since; they are shown first.")
]
Names = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        metavar="HEADER=COLUMN|@MAP",
        help="Map a header to a column: 'Lab ID=private_identifier'. 'Note=' ignores a column; "
        "@NAME uses a map from the config file. Can be repeated.",
    ),
]
SkipLines = Annotated[
    int,
    typer.Option(
        "--skip-lines", min=0, metavar="N", help="Number of lines or rows before the header."
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
    typer.Option(
        "--date-format",
        metavar="FORMAT",
        help="Date format in addition to YYYY-MM-DD, such as DD.MM.YYYY or M/D/YY.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class BulkOptions:
    """The options of every command that changes rows from a file."""

    dry_run: DryRun = False
    report: Report = None
    rejects: Rejects = None
    undo_file: UndoFile = None
    encoding: Encoding = None
    delimiter: Delimiter = None
    sheet: Sheet = None
    names: Names = None
    skip_lines: SkipLines = 0
    missing_words: MissingWords = False


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


def expanded(function: Callable[..., None]) -> Callable[..., None]:
    """Return a command with an option for each field of its parameter `given`, a dataclass."""
    hints = get_type_hints(function, include_extras=True)
    bundle = hints.pop("given")
    options = get_type_hints(bundle, include_extras=True)

    @wraps(function)
    def command(**values: Any) -> None:
        given = bundle(**{name: values.pop(name) for name in options})
        function(**values, given=given)

    parameters: list[Parameter] = []
    for one in signature(function).parameters.values():
        if one.name != "given":
            parameters.append(one.replace(annotation=hints[one.name]))
            continue
        for field in fields(bundle):
            option = {"annotation": options[field.name], "default": field.default}
            parameters.append(one.replace(name=field.name, **option))
    parameters.sort(key=lambda one: one.default is not Parameter.empty)
    # Typer reads both.
    command.__annotations__ = {**hints, **options}
    command.__signature__ = Signature(parameters)  # type: ignore[attr-defined]  # inspect uses it
    return command


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
) -> Job[Any]:
    """Return the job for a backend; see `aspencli.cli.changes.runner.Job`."""
    context.announce(backend)
    if backend is Backend.API and group_id is not None:
        from aspencli.cli.changes.remote import ApiJob, RestoreJob

        job = RestoreJob if purpose.spec.expects and not purpose.spec.is_plain else ApiJob
        return job(context, stack, group_id, files, purpose)
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
