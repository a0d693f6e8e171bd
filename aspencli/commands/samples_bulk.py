"""``aspencli samples update-public-ids`` and ``undo``: bulk changes, all or nothing."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aspencli.cli import examples
from aspencli.context import AppContext, current
from aspencli.errors import BadInputError

if TYPE_CHECKING:
    from aspencli.output.console import Output
    from aspencli.services.tables import Table

_DELIMITERS = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|"}


def register(app: typer.Typer) -> None:
    """Add the commands to the group ``samples``."""
    app.command("update-public-ids", epilog=_UPDATE_EXAMPLES)(update_public_ids)
    app.command("undo", epilog=_UNDO_EXAMPLES)(undo)


_UPDATE_EXAMPLES = examples(
    "aspencli --env staging samples update-public-ids --group-id 1 "
    "--private-to-public-id-mapping ids.csv --dry-run",
    "aspencli samples update-public-ids --group-id 1 -f - --yes < ids.csv",
)
_UNDO_EXAMPLES = examples(
    "aspencli samples undo UNDO.csv --dry-run", "aspencli samples undo 20261124-034012-3f9a"
)

DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show the whole plan on stdout and write nothing.")
]
Report = Annotated[
    Path | None,
    typer.Option(
        "--report",
        metavar="FILE",
        help="Write each row and its outcome to a file: .csv, .json or .xlsx.",
    ),
]
Rejects = Annotated[
    Path | None,
    typer.Option(
        "--rejects",
        metavar="FILE",
        help="Write the bad rows to a file that can be mended and given again: .csv, .tsv or "
        ".xlsx.",
    ),
]
UndoFile = Annotated[
    Path | None,
    typer.Option("--undo-file", metavar="FILE", help="Where the undo file goes; a new file."),
]


def update_public_ids(
    ctx: typer.Context,
    mapping: Annotated[
        str,
        typer.Option(
            "--private-to-public-id-mapping",
            "-f",
            metavar="FILE",
            help="Table with the columns private_identifier and public_identifier: CSV, TSV, a "
            "workbook (.xlsx), perhaps compressed (.gz); - for stdin.",
        ),
    ],
    group_id: Annotated[
        int | None,
        typer.Option("--group-id", metavar="ID", help="The submitting group (or --org)."),
    ] = None,
    dry_run: DryRun = False,
    report: Report = None,
    rejects: Rejects = None,
    undo_file: UndoFile = None,
    encoding: Annotated[
        str | None, typer.Option("--encoding", help="The file's encoding, if it is not UTF-8.")
    ] = None,
    delimiter: Annotated[
        str | None, typer.Option("--delimiter", help="What separates its cells, if not found out.")
    ] = None,
    sheet: Annotated[
        str | None,
        typer.Option("--sheet", metavar="NAME|NUMBER", help="The sheet of a workbook to read."),
    ] = None,
    names: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="HEADER=COLUMN",
            help="What the file calls a column: 'Lab ID=private_identifier'; may be repeated.",
        ),
    ] = None,
) -> None:
    """Give samples of one group new public identifiers, as a file says: all rows or none.

    Every bad line is named, and nothing is written as long as there is one. Swaps and cycles of
    identifiers within the file are fine. An undo file is on disk before anything is committed.
    """
    from aspencli.commands.bulk_job import Job, Purpose
    from aspencli.commands.bulk_views import RENAMING
    from aspencli.services.job_files import JobFiles
    from aspencli.services.mapping import read_mapping
    from aspencli.services.tables import open_table
    from db.bulk.samples import RENAME

    context = current(ctx)
    group = _group_id(context, group_id)
    separator = _delimiter(delimiter)
    with ExitStack() as stack:
        files = JobFiles(stack, mapping, RENAMING.report, report, undo_file, rejects)
        observe = files.fingerprint.take
        source = stack.enter_context(
            open_table(mapping, observe, encoding=encoding, delimiter=separator, sheet=sheet)
        )
        said = _say_notes(context.out, source)
        purpose = Purpose("samples update-public-ids", RENAME, RENAMING, dry_run)
        job = Job(context, stack, group, files, purpose)
        keep = partial(files.rejects.keep, source) if files.rejects else iter
        assessment = job.assess(read_mapping(source, job.faults.add, names or (), keep))
        _say_notes(context.out, source, said)
        if source.blank_lines:
            context.out.info(f"Note: blank lines skipped: {source.blank_lines:,}.")
        job.go(assessment, source.name, source.remedy)


def undo(
    ctx: typer.Context,
    what: Annotated[
        str,
        typer.Argument(
            help="The run, as `aspencli history` names it, or its undo file.", metavar="ID|FILE"
        ),
    ],
    dry_run: DryRun = False,
    force: Annotated[
        bool, typer.Option("--force", help="Put back what was changed since, too; shown first.")
    ] = False,
    report: Report = None,
    undo_file: UndoFile = None,
) -> None:
    """Put back what a bulk update changed, where it still holds what that update wrote.

    Samples that were changed since are named and left alone, unless --force is given; so are those
    whose old identifier another sample holds by now. The others are put back, all or none; where
    some were left alone, the exit code is 7. The undo can itself be undone.
    """
    from aspencli.commands.bulk_job import Job, Purpose
    from aspencli.commands.bulk_views import CHANGING, RENAMING
    from aspencli.services.folding import fold
    from aspencli.services.job_files import JobFiles
    from aspencli.services.journal import open_journal
    from aspencli.services.runs import command_for, undo_source
    from aspencli.services.undofile import read_origin, read_undo

    context = current(ctx)
    file, run = undo_source(what, fold(open_journal().read().events))
    origin = read_origin(file)
    if origin.target != context.target.label:
        raise BadInputError(
            f"{file} was written on {origin.target}, and the target is {context.target.label}",
            hint=f"Undo it there: {command_for(origin.target, 'samples', 'undo', what)}",
        )
    with ExitStack() as stack:
        view = CHANGING if origin.columns else RENAMING
        files = JobFiles(stack, file, view.report, report, undo_file)
        purpose = Purpose("samples undo", origin.spec, view, dry_run, force, run)
        job = Job(context, stack, origin.group_id, files, purpose)
        requests = read_undo(file, origin, job.faults.add, files.fingerprint.take)
        job.go(job.assess(requests, skip_moved=True), file)


def _group_id(context: AppContext, given: int | None) -> int:
    if given is not None:
        return given
    found = context.config.setting("org")
    if found.value is None:
        raise BadInputError(
            "no group was named", hint="Add --group-id ID; see: aspencli groups list"
        )
    try:
        return int(found.value)
    except ValueError:
        raise BadInputError(
            f"{found.value!r} is no group id (from {found.source})",
            hint="Give a number; see: aspencli groups list",
        ) from None


def _delimiter(word: str | None) -> str | None:
    found = _DELIMITERS.get(word, word) if word else None
    if found is not None and (len(found) != 1 or found in '"\r\n '):
        raise BadInputError(
            f"--delimiter {word!r} is no character that can separate cells",
            hint="Give comma, semicolon, tab, pipe, or another single character.",
        )
    return found


def _say_notes(out: Output, source: Table, said: int = 0) -> int:
    """Say how the file is read, as far as that was not said; how many notes there are."""
    for note in source.notes[said:]:
        out.info(f"Note: {note}.")
    return len(source.notes)
