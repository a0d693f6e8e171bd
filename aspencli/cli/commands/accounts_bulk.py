"""``import`` and ``undo`` for ``aspencli users`` and ``groups``: all rows or none."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aspencli.cli.app import examples
from aspencli.cli.changes import options
from aspencli.cli.context import AppContext, current

if TYPE_CHECKING:
    from aspencli.changes.file_schema import Kind
    from aspencli.cli.changes.views import View

File = Annotated[
    str,
    typer.Argument(
        metavar="FILE",
        help="Input file with a header row: CSV, TSV, or Excel (.xlsx), optionally compressed; "
        "- for stdin.",
    ),
]


def register_users(app: typer.Typer) -> None:
    """Add the commands to the group ``users``."""
    app.command("import", epilog=_USERS_EXAMPLES)(import_users)
    app.command("undo", epilog=examples("aspencli users undo 20261124-034012-3f9a"))(undo_users)


def register_groups(app: typer.Typer) -> None:
    """Add the commands to the group ``groups``."""
    app.command("import", epilog=_GROUPS_EXAMPLES)(import_groups)
    app.command("undo", epilog=examples("aspencli groups undo 20261124-034012-3f9a"))(undo_groups)


_USERS_EXAMPLES = examples(
    "aspencli --env staging users import users.csv --dry-run",
    "aspencli --env prod users import Users.xlsx --map 'Mail=email' --confirm prod",
)
_GROUPS_EXAMPLES = examples("aspencli --env staging groups import groups.csv --dry-run")


@dataclass(frozen=True)
class _Input:
    """Options for reading the file, and the extra files to write."""

    file: str
    key: str | None
    clear_word: str | None
    names: list[str] | None
    encoding: str | None
    delimiter: str | None
    sheet: str | None
    skip_lines: int
    missing_words: bool
    dry_run: bool
    report: Path | None
    rejects: Path | None
    undo_file: Path | None


def import_users(
    ctx: typer.Context,
    file: File,
    key: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Column that identifies users: email or auth0_user_id. Default: email.",
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
    skip_lines: options.SkipLines = 0,
    missing_words: options.MissingWords = False,
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

    given = _Input(
        *(file, key, clear_word, names, encoding, delimiter, sheet, skip_lines, missing_words),
        *(dry_run, report, rejects, undo_file),
    )
    _import(current(ctx), "users import", USER_CHANGES, USERS, given)


def import_groups(
    ctx: typer.Context,
    file: File,
    key: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Column that identifies groups: prefix or name."),
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
    skip_lines: options.SkipLines = 0,
    missing_words: options.MissingWords = False,
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

    given = _Input(
        *(file, key, clear_word, names, encoding, delimiter, sheet, skip_lines, missing_words),
        *(dry_run, report, rejects, undo_file),
    )
    _import(current(ctx), "groups import", GROUP_CHANGES, GROUPS, given)


def undo_users(
    ctx: typer.Context,
    what: options.Undone,
    dry_run: options.DryRun = False,
    force: options.Force = False,
    report: options.Report = None,
    undo_file: options.UndoFile = None,
) -> None:
    """Undo an import of users.

    Users that the import created are deleted, unless they are referenced elsewhere by now. Those
    users, and values changed since the import, are listed and skipped, and the exit code is 7.
    --force also reverts values changed since. The undo can itself be undone.
    """
    from aspencli.cli.changes.undo import take_back

    take_back(current(ctx), "users", what, dry_run, force, report, undo_file)


def undo_groups(
    ctx: typer.Context,
    what: options.Undone,
    dry_run: options.DryRun = False,
    force: options.Force = False,
    report: options.Report = None,
    undo_file: options.UndoFile = None,
) -> None:
    """Undo an import of groups.

    Groups that the import created are deleted, unless they are referenced elsewhere by now, for
    example by a user's role. Those groups, and values changed since the import, are listed and
    skipped, and the exit code is 7. --force also reverts values changed since. The undo can itself
    be undone.
    """
    from aspencli.cli.changes.undo import take_back

    take_back(current(ctx), "groups", what, dry_run, force, report, undo_file)


def _import(context: AppContext, command: str, kind: Kind, view: View, given: _Input) -> None:
    from aspencli.changes.file_schema import checked_clear_word, lay_out, read_changes
    from aspencli.changes.report import JobFiles
    from aspencli.cli.changes.runner import DatabaseJob, Purpose
    from aspencli.tabular.table import open_table

    separator = options.chosen_delimiter(given.delimiter)
    word = checked_clear_word(given.clear_word)
    with ExitStack() as stack:
        files = JobFiles(
            stack, given.file, view.report, given.report, given.undo_file, given.rejects
        )
        source = stack.enter_context(
            open_table(
                given.file,
                files.fingerprint.take,
                encoding=given.encoding,
                delimiter=separator,
                sheet=given.sheet,
                skip_lines=given.skip_lines,
            )
        )
        said = options.print_notes(context.out, source)
        layout = lay_out(
            source, kind, key=given.key, names=options.chosen_names(context, given.names)
        )
        said = options.print_notes(context.out, source, said)
        purpose = Purpose(command, layout.spec, view, given.dry_run)
        job = DatabaseJob(context, stack, None, files, purpose)
        keep = partial(files.rejects.keep, source) if files.rejects else iter
        rows = read_changes(
            source, layout, job.faults.add, keep, word, missing_words=given.missing_words
        )
        job.run(source, rows, said)
