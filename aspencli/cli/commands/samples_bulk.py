"""``aspencli samples update-public-ids``, ``bulk-update`` and ``undo``: all rows or none."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import Annotated

import typer

from aspencli.cli import params
from aspencli.cli.app import examples
from aspencli.cli.changes import options
from aspencli.cli.context import current


def register(app: typer.Typer) -> None:
    """Add the commands to the group ``samples``."""
    app.command("update-public-ids", rich_help_panel="Bulk", epilog=_RENAME_EXAMPLES)(
        update_public_ids
    )
    app.command("bulk-update", rich_help_panel="Bulk", epilog=_UPDATE_EXAMPLES)(bulk_update)
    app.command("undo", rich_help_panel="Bulk", epilog=_UNDO_EXAMPLES)(undo)
    app.command("resume", rich_help_panel="Bulk", epilog=_RESUME_EXAMPLES)(resume)


_RENAME_EXAMPLES = examples(
    "aspencli --env staging samples update-public-ids --group-id 1 "
    "--private-to-public-id-mapping ids.csv --dry-run",
    "aspencli samples update-public-ids --group-id 1 -f - --yes < ids.csv",
    "aspencli --env prod samples update-public-ids --group-id 1 -f ids.csv --via api",
)
_UPDATE_EXAMPLES = examples(
    "aspencli --env staging samples bulk-update --group-id 1 --from dates.csv --dry-run",
    "aspencli samples bulk-update --group-id 1 --from Samples.xlsx --key id "
    "--map 'Sampled on=collection_date' --report outcome.csv",
)
_UNDO_EXAMPLES = examples(
    "aspencli samples undo UNDO.csv --dry-run", "aspencli samples undo 20261124-034012-3f9a"
)

_RESUME_EXAMPLES = examples("aspencli --env prod samples resume 20261124-034012-3f9a")


def update_public_ids(
    ctx: typer.Context,
    mapping: Annotated[
        str,
        typer.Option(
            "--private-to-public-id-mapping",
            "-f",
            metavar="FILE",
            help="Mapping file with the columns private_identifier and public_identifier: CSV, "
            "TSV, or Excel (.xlsx), optionally compressed; - for stdin.",
        ),
    ],
    group_id: options.GroupId = None,
    dry_run: options.DryRun = False,
    report: options.Report = None,
    rejects: options.Rejects = None,
    undo_file: options.UndoFile = None,
    encoding: options.Encoding = None,
    delimiter: options.Delimiter = None,
    sheet: options.Sheet = None,
    names: options.Names = None,
    template: options.TemplateName = "auto",
    skip_lines: options.SkipLines = 0,
    missing_words: options.MissingWords = False,
    via: params.ViaOption = None,
) -> None:
    """Update public identifiers of samples in one group from a mapping file.

    All rows are written, or none. If any row is invalid, every invalid row is listed and nothing is
    written. Identifiers can be swapped or rotated between samples in the file. An undo file is
    saved before anything is written.

    With --via db, the run is one transaction. With --via api, it is several requests; if it is
    interrupted, run the same command again or `samples resume` to continue.
    """
    from aspen.database.bulk.samples import RENAME
    from aspencli.changes.cells import read_mapping
    from aspencli.changes.report import JobFiles
    from aspencli.cli.changes.runner import Purpose
    from aspencli.cli.changes.views import RENAMING
    from aspencli.tabular.table import open_table

    context = current(ctx)
    group = options.chosen_group_id(context, group_id)
    separator, chosen = options.chosen_delimiter(delimiter), options.chosen_names(context, names)
    with ExitStack() as stack:
        files = JobFiles(stack, mapping, RENAMING.report, report, undo_file, rejects)
        observe = files.fingerprint.take
        source = stack.enter_context(
            open_table(
                mapping,
                observe,
                encoding=encoding,
                delimiter=separator,
                sheet=sheet,
                skip_lines=skip_lines,
                template=template,
            )
        )
        said = options.print_notes(context.out, source)
        purpose = Purpose("samples update-public-ids", RENAME, RENAMING, dry_run)
        job = options.open_job(
            context, stack, group, files, purpose, params.choose_backend(context, via)
        )
        keep = partial(files.rejects.keep, source) if files.rejects else iter
        rows = read_mapping(
            source,
            job.faults.add,
            chosen,
            keep,
            sought=job.faults.look_at_key,
            missing_words=missing_words,
        )
        job.run(source, rows, said)


def bulk_update(
    ctx: typer.Context,
    file: Annotated[
        str,
        typer.Option(
            "--from",
            "-f",
            metavar="FILE",
            help="File whose header names the columns to update: CSV, TSV, or Excel (.xlsx), "
            "optionally compressed; - for stdin.",
        ),
    ],
    group_id: options.GroupId = None,
    key: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Column that identifies samples: private_identifier, public_identifier, or id. "
            "Default: the one in the header.",
        ),
    ] = None,
    clear_word: options.ClearWord = None,
    dry_run: options.DryRun = False,
    report: options.Report = None,
    rejects: options.Rejects = None,
    undo_file: options.UndoFile = None,
    encoding: options.Encoding = None,
    delimiter: options.Delimiter = None,
    sheet: options.Sheet = None,
    names: options.Names = None,
    template: options.TemplateName = "auto",
    skip_lines: options.SkipLines = 0,
    date_format: options.DateFormat = None,
    missing_words: options.MissingWords = False,
) -> None:
    """Update samples in one group from a file. All rows are written, or none.

    Columns that can be updated: public_identifier, new_private_identifier, collection_date,
    sequencing_date, private, location. A blank cell leaves a value unchanged. If any row is
    invalid, every invalid row is listed and nothing is written. An undo file is saved before
    anything is committed.
    """
    from aspencli.changes.file_schema import checked_clear_word, lay_out, read_changes
    from aspencli.changes.report import JobFiles
    from aspencli.cli.changes.runner import DatabaseJob, Purpose
    from aspencli.cli.changes.views import CHANGING
    from aspencli.samples.bulk import SAMPLE_CHANGES
    from aspencli.tabular.dates import DayFormat
    from aspencli.tabular.table import open_table

    context = current(ctx)
    group = options.chosen_group_id(context, group_id)
    separator, word = options.chosen_delimiter(delimiter), checked_clear_word(clear_word)
    days = DayFormat(date_format) if date_format is not None else None
    with ExitStack() as stack:
        files = JobFiles(stack, file, CHANGING.report, report, undo_file, rejects)
        observe = files.fingerprint.take
        source = stack.enter_context(
            open_table(
                file,
                observe,
                encoding=encoding,
                delimiter=separator,
                sheet=sheet,
                skip_lines=skip_lines,
                template=template,
            )
        )
        said = options.print_notes(context.out, source)
        layout = lay_out(
            source, SAMPLE_CHANGES, key=key, names=options.chosen_names(context, names)
        )
        said = options.print_notes(context.out, source, said)
        purpose = Purpose("samples bulk-update", layout.spec, CHANGING, dry_run)
        job = DatabaseJob(context, stack, group, files, purpose)
        keep = partial(files.rejects.keep, source) if files.rejects else iter
        rows = read_changes(
            source,
            layout,
            job.faults.add,
            keep,
            word,
            sought=job.faults.look_at_key,
            missing_words=missing_words,
            days=days,
        )
        job.run(source, rows, said)


def undo(
    ctx: typer.Context,
    what: options.Undone,
    dry_run: options.DryRun = False,
    force: options.Force = False,
    report: options.Report = None,
    undo_file: options.UndoFile = None,
    via: params.ViaOption = None,
) -> None:
    """Undo an update or a bulk update of samples.

    Samples changed since the update are listed and skipped, unless --force is given. Samples whose
    old identifier is now used by another sample are skipped too. All others are reverted, or none.
    If any were skipped, the exit code is 7. The undo can itself be undone.

    Without --via, the backend of the update is used. The API cannot clear a location, or move
    identifiers in a cycle; it skips such samples, and --via db restores them.
    """
    from aspencli.cli.changes.undo import take_back

    take_back(current(ctx), "samples", what, dry_run, force, report, undo_file, via)


def resume(
    ctx: typer.Context,
    what: Annotated[
        str,
        typer.Argument(
            help="Run id from `aspencli history`, or a journal file.", metavar="ID|JOURNAL"
        ),
    ],
    report: options.Report = None,
    dry_run: options.DryRun = False,
) -> None:
    """Resume an interrupted update of public identifiers through the API.

    Samples changed by someone else since are listed and skipped. All others are updated, and no
    sample keeps a temporary identifier. If any were skipped, the exit code is 7.
    """
    from aspencli.cli.changes.remote import take_up

    take_up(current(ctx), what, report, dry_run=dry_run)
