"""Options shared by the commands that change data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from aspencli.cli import params

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
