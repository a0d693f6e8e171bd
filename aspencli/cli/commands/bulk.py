"""Bulk changes from files, and their undo, for samples, users, and groups: all rows or none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aspencli.cli import params
from aspencli.cli.app import examples, expanded
from aspencli.cli.changes import options
from aspencli.cli.changes.options import BulkOptions, UndoOptions
from aspencli.cli.context import AppContext, current
from aspencli.cli.output.formats import prints

if TYPE_CHECKING:
    from aspen.database.bulk.spec import RowRequest
    from aspencli.changes.cells import ChangeKind
    from aspencli.changes.report import JobFiles
    from aspencli.cli.changes.runner import BulkJob
    from aspencli.cli.changes.views import View
    from aspencli.tabular.dates import DayFormat
    from aspencli.tabular.table import Table

    Prepare = Callable[[ExitStack, JobFiles, Table], tuple[BulkJob[Any], Iterator[RowRequest]]]

File = Annotated[
    str,
    typer.Argument(
        metavar="FILE",
        help="Input file with a header row: CSV, TSV, or Excel (.xlsx), optionally compressed; "
        "- for stdin.",
    ),
]

UserKey = Annotated[
    str | None,
    params.text_option(
        "Column that identifies users: email or auth0_user_id. Default: email.",
        metavar="COLUMN",
    ),
]


def register_samples(app: typer.Typer) -> None:
    """Add the commands to the group ``samples``."""
    command = partial(app.command, rich_help_panel="Bulk")
    command("update-public-ids", epilog=_RENAME_EXAMPLES)(update_public_ids)
    command("bulk-update", epilog=_UPDATE_EXAMPLES)(bulk_update)
    command("undo", epilog=_UNDO_EXAMPLES)(undo_samples)
    command("resume", epilog=_RESUME_EXAMPLES)(resume)


def register_users(app: typer.Typer) -> None:
    """Add the commands to the group ``users``."""
    app.command("import", epilog=_USERS_EXAMPLES)(import_users)
    app.command("undo", epilog=examples("aspencli users undo 20261124-034012-3f9a"))(undo_users)


def register_groups(app: typer.Typer) -> None:
    """Add the commands to the group ``groups``."""
    app.command("import", epilog=_GROUPS_EXAMPLES)(import_groups)
    app.command("undo", epilog=examples("aspencli groups undo 20261124-034012-3f9a"))(undo_groups)


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
_USERS_EXAMPLES = examples(
    "aspencli --env staging users import users.csv --dry-run",
    "aspencli --env prod users import Users.xlsx --map 'Mail=email' --confirm prod",
)
_GROUPS_EXAMPLES = examples("aspencli --env staging groups import groups.csv --dry-run")


@expanded
@prints(
    "aspencli.cli.changes.views:RESULT_COLUMNS", "aspencli.cli.changes.views:RENAMING.plan_columns"
)
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
    template: options.TemplateName = "auto",
    via: params.ViaOption = None,
    *,
    given: BulkOptions,
) -> None:
    """Update public identifiers of samples in one group from a mapping file.

    All rows are written, or none. If any row is invalid, every invalid row is listed and nothing is
    written. Identifiers can be swapped or rotated between samples in the file. An undo file is
    saved before anything is written.

    With --via db, the run is one transaction. With --via api, it is several requests; if it is
    interrupted, run the same command again or `samples resume` to continue.
    """
    from aspen.database.bulk.columns import RENAME
    from aspencli.changes.cells import read_mapping
    from aspencli.cli.changes import runner
    from aspencli.cli.changes.views import RENAMING

    context = current(ctx)
    group = runner.chosen_group_id(context, group_id)
    names = runner.chosen_names(context, given.names)

    def prepare(
        stack: ExitStack, files: JobFiles, source: Table
    ) -> tuple[BulkJob[Any], Iterator[RowRequest]]:
        purpose = runner.Purpose("samples update-public-ids", RENAME, RENAMING, given.dry_run)
        backend = context.choose_backend(via)
        job = runner.open_job(context, stack, group, files, purpose, backend)
        return job, read_mapping(
            source,
            job.faults.add,
            names,
            partial(files.rejects.keep, source) if files.rejects else iter,
            sought=job.faults.look_at_key,
            missing_words=given.missing_words,
        )

    _run(context, mapping, RENAMING, given, prepare, template)


@expanded
@prints(
    "aspencli.cli.changes.views:TALLY_COLUMNS",
    "aspencli.cli.changes.views:RESULT_COLUMNS",
    "aspencli.cli.changes.views:CHANGING.plan_columns",
)
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
        params.text_option(
            "Column that identifies samples: private_identifier, public_identifier, or id. "
            "Default: the one in the header.",
            metavar="COLUMN",
        ),
    ] = None,
    clear_word: options.ClearWord = None,
    template: options.TemplateName = "auto",
    date_format: options.DateFormat = None,
    *,
    given: BulkOptions,
) -> None:
    """Update samples in one group from a file. All rows are written, or none.

    Columns that can be updated: public_identifier, new_private_identifier, collection_date,
    sequencing_date, private, location. A blank cell leaves a value unchanged. If any row is
    invalid, every invalid row is listed and nothing is written. An undo file is saved before
    anything is committed.
    """
    from aspencli.cli.changes import runner
    from aspencli.cli.changes.views import CHANGING
    from aspencli.samples.bulk import SAMPLE_CHANGES
    from aspencli.tabular.dates import DayFormat

    context = current(ctx)
    group = runner.chosen_group_id(context, group_id)
    days = DayFormat(date_format) if date_format is not None else None
    _change(
        context,
        "samples bulk-update",
        file,
        SAMPLE_CHANGES,
        CHANGING,
        given,
        key,
        clear_word,
        group=group,
        days=days,
        template=template,
    )


@expanded
@prints(
    "aspencli.cli.changes.views:TALLY_COLUMNS",
    "aspencli.cli.changes.views:RESULT_COLUMNS",
    "aspencli.cli.changes.views:USERS.plan_columns",
)
def import_users(
    ctx: typer.Context,
    file: File,
    key: UserKey = None,
    clear_word: options.ClearWord = None,
    *,
    given: BulkOptions,
) -> None:
    r"""Create and update users and their roles from a file. All rows are written, or none.

    Columns: email (identifies the user; case-insensitive), new_email, name, auth0_user_id,
    system_admin, gisaid_submitter_id, group (id, name, or prefix), and role (admin, member, or
    viewer). A user can have several rows, one per group. A blank cell leaves a value unchanged;
    \N clears it, and in role removes the user from the group. A new user needs a name and an
    auth0_user_id.
    """
    from aspencli.cli.changes.views import USERS
    from aspencli.users.bulk import USER_CHANGES

    context = current(ctx)
    _change(context, "users import", file, USER_CHANGES, USERS, given, key, clear_word)


@expanded
@prints(
    "aspencli.cli.changes.views:TALLY_COLUMNS",
    "aspencli.cli.changes.views:RESULT_COLUMNS",
    "aspencli.cli.changes.views:GROUPS.plan_columns",
)
def import_groups(
    ctx: typer.Context,
    file: File,
    key: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Column that identifies groups: prefix or name."),
    ] = None,
    clear_word: options.ClearWord = None,
    *,
    given: BulkOptions,
) -> None:
    r"""Create and update groups from a file. All rows are written, or none.

    Columns: prefix or name (identifies the group), new_prefix, new_name, address, division,
    location, default_tree_location (an id, or "Region / Country / Division / Location"),
    submitting_lab, auth0_org_id. A blank cell leaves a value unchanged; \N clears it. A new group
    needs a name, a prefix, a default_tree_location, and the auth0_org_id of its organization.
    Create the organization in Auth0 first: this command only writes to the database.
    """
    from aspencli.cli.changes.views import GROUPS
    from aspencli.users.bulk import GROUP_CHANGES

    context = current(ctx)
    _change(context, "groups import", file, GROUP_CHANGES, GROUPS, given, key, clear_word)


def _change(
    context: AppContext,
    command: str,
    file: str,
    kind: ChangeKind,
    view: View,
    given: BulkOptions,
    key: str | None,
    clear_word: str | None,
    *,
    group: int | None = None,
    days: DayFormat | None = None,
    template: str = "none",
) -> None:
    """Create or update rows, in the columns named in the header."""
    from aspencli.changes.cells import checked_clear_word, lay_out, read_changes
    from aspencli.cli.changes import runner

    word, names = checked_clear_word(clear_word), runner.chosen_names(context, given.names)

    def prepare(
        stack: ExitStack, files: JobFiles, source: Table
    ) -> tuple[BulkJob[Any], Iterator[RowRequest]]:
        layout = lay_out(source, kind, key=key, names=names)
        purpose = runner.Purpose(command, layout.spec, view, given.dry_run)
        job = runner.DatabaseJob(context, stack, group, files, purpose)
        return job, read_changes(
            source,
            layout,
            job.faults.add,
            partial(files.rejects.keep, source) if files.rejects else iter,
            word,
            sought=job.faults.look_at_key,
            missing_words=given.missing_words,
            days=days,
        )

    _run(context, file, view, given, prepare, template)


def _run(
    context: AppContext,
    file: str,
    view: View,
    given: BulkOptions,
    prepare: Prepare,
    template: str,
) -> None:
    """Open a file, and run the change that it asks for."""
    from aspencli.changes.report import JobFiles
    from aspencli.cli.changes import runner

    runner.chosen_delimiter(given.delimiter)  # refused before any file is created
    with ExitStack() as stack:
        files = JobFiles(stack, file, view.report, given.report, given.undo_file, given.rejects)
        source, said = stack.enter_context(
            runner.opened_table(context, file, given, template, files.fingerprint.take)
        )
        job, rows = prepare(stack, files, source)
        said = runner.print_notes(context.out, source, said)
        job.run(source, rows, said)


@expanded
@prints(
    "aspencli.cli.changes.views:RESULT_COLUMNS",
    "aspencli.cli.changes.views:TALLY_COLUMNS",
    "aspencli.cli.changes.views:RENAMING.plan_columns",
    "aspencli.cli.changes.views:CHANGING.plan_columns",
)
def undo_samples(ctx: typer.Context, given: UndoOptions, via: params.ViaOption = None) -> None:
    """Undo an update or a bulk update of samples.

    Samples changed since the update are listed and skipped, unless --force is given. Samples whose
    old identifier is now used by another sample are skipped too. All others are reverted, or none.
    If any were skipped, the exit code is 7. The undo can itself be undone.

    Without --via, the backend of the update is used. The API cannot clear a location, or move
    identifiers in a cycle; it skips such samples, and --via db restores them.
    """
    from aspencli.cli.changes.undo import take_back

    take_back(current(ctx), "samples", given, via)


@prints(
    "aspencli.cli.changes.views:RESULT_COLUMNS", "aspencli.cli.changes.views:RENAMING.plan_columns"
)
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


@expanded
@prints(
    "aspencli.cli.changes.views:TALLY_COLUMNS",
    "aspencli.cli.changes.views:RESULT_COLUMNS",
    "aspencli.cli.changes.views:USERS.plan_columns",
    "aspencli.cli.changes.two_sided:CHANGE_COLUMNS",
)
def undo_users(ctx: typer.Context, given: UndoOptions) -> None:
    """Undo an import, an update, a change of roles, or a deletion of users.

    Users that an import created are deleted, unless they are referenced elsewhere by now. Those
    users, and values changed since, are listed and skipped, and the exit code is 7. --force also
    reverts values changed since. The undo can itself be undone.

    What changed at the identity provider is restored there, too; an import changes only the
    database. A deleted account cannot be restored.
    """
    from aspencli.cli.changes.undo import take_back

    take_back(current(ctx), "users", given)


@expanded
@prints(
    "aspencli.cli.changes.views:TALLY_COLUMNS",
    "aspencli.cli.changes.views:RESULT_COLUMNS",
    "aspencli.cli.changes.views:GROUPS.plan_columns",
    "aspencli.cli.changes.two_sided:CHANGE_COLUMNS",
)
def undo_groups(ctx: typer.Context, given: UndoOptions) -> None:
    """Undo an import, an update, or the archiving of groups.

    Groups that an import created are deleted, unless they are referenced elsewhere by now, for
    example by a user's role. Those groups, and values changed since, are listed and skipped, and
    the exit code is 7. --force also reverts values changed since. The undo can itself be undone.

    What changed at the identity provider is restored there, too, except invitations; an import
    changes only the database. A deleted organization cannot be restored.
    """
    from aspencli.cli.changes.undo import take_back

    take_back(current(ctx), "groups", given)
