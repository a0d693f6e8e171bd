"""``aspencli samples update`` and ``delete``, through the API.

Changes to samples, as given by command-line options.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aspencli.cli import params
from aspencli.cli.app import examples
from aspencli.cli.changes import options
from aspencli.cli.changes.options import Change, read_records
from aspencli.cli.changes.views import OUTCOME_COLUMNS, outcome_row
from aspencli.cli.context import AppContext, current
from aspencli.cli.output.formats import Column, Row
from aspencli.text import counted

if TYPE_CHECKING:
    from aspencli.remote.scope import Scope
    from aspencli.samples.edit import Edit


CHANGE_COLUMNS = (
    Column("id", "Id", right=True, whole=True),
    Column("field", "Field", whole=True),
    Column("before", "Before", whole=True),
    Column("after", "After", whole=True),
)
_FRESH_S = 10.0
"""Maximum age, in seconds, of data that is overwritten without reading it again."""


def register(app: typer.Typer) -> None:
    """Add the commands to the group ``samples``."""
    app.command(rich_help_panel="Change", epilog=_UPDATE_EXAMPLES)(update)
    app.command(rich_help_panel="Change", epilog=_DELETE_EXAMPLES)(delete)


_UPDATE_EXAMPLES = examples(
    "aspencli samples update RCPHL-0000001 --collection-date 2023-05-17 --private",
    "aspencli samples update --from ids.txt --location 'North America / USA / California'",
)
_DELETE_EXAMPLES = examples(
    "aspencli samples delete RCPHL-0000001 RCPHL-0000002 --dry-run",
    "aspencli samples delete --from ids.txt --yes",
)


def update(
    ctx: typer.Context,
    keys: params.Keys = None,
    file: params.KeysFrom = None,
    by: params.By = None,
    private_identifier: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="New private identifier (single sample only)."),
    ] = None,
    public_identifier: Annotated[
        str | None, typer.Option(metavar="TEXT", help="New public identifier (single sample only).")
    ] = None,
    collection_date: Annotated[
        str | None,
        typer.Option(metavar="DATE", help="Date: 2023-05-17, '17 May 2023', '2 days ago'."),
    ] = None,
    sequencing_date: Annotated[
        str | None, typer.Option(metavar="DATE", help="Date, or 'none' to clear it.")
    ] = None,
    location: Annotated[
        str | None,
        typer.Option(
            metavar="ID|PLACE",
            help="An id, or Region / Country / Division / Location (the last parts are optional).",
        ),
    ] = None,
    private: Annotated[
        bool | None,
        typer.Option("--private/--public", help="Hide from, or show to, other groups."),
    ] = None,
    json_data: Annotated[
        str | None,
        typer.Option(
            metavar="JSON",
            help='Updates as JSON, instead of other options: {"samples": [{"id": 7, ...}]}.',
        ),
    ] = None,
    missing_words: options.MissingWords = False,
    dry_run: params.DryRunOption = False,
    group: params.Group = None,
    pathogen: params.Pathogen = None,
) -> None:
    """Update samples. Fields that are not given stay unchanged.

    Each sample is read, changed, and written back as a whole. To make different changes to many
    samples, use samples bulk-update.
    """
    from aspencli.cli.params import chosen_ids, chosen_scope
    from aspencli.samples.edit import plan_edits, plan_records
    from aspencli.tabular.identifiers import KEYS

    context = current(ctx)
    change = Change(
        context,
        {"private_identifier": private_identifier, "public_identifier": public_identifier},
        {"collection_date": collection_date, "sequencing_date": sequencing_date},
        location,
        private,
        missing_words,
    )
    records = read_records(json_data, change, bool(keys or file))
    ids = chosen_ids(context, keys, file, KEYS) if records is None else []
    scope = chosen_scope(context, group, pathogen, writing=True)
    samples, began = context.api().samples, time.monotonic()
    if records is not None:
        edits = plan_records(samples, scope, records, missing_words=missing_words)
    else:
        edits = plan_edits(samples, scope, ids, by, change.values())
    _write(context, scope, edits, began, dry_run=dry_run)


def delete(
    ctx: typer.Context,
    keys: params.Keys = None,
    file: params.KeysFrom = None,
    by: params.By = None,
    skip_missing: params.SkipMissing = False,
    dry_run: params.DryRunOption = False,
    group: params.Group = None,
    pathogen: params.Pathogen = None,
) -> None:
    """Permanently delete samples and their sequences.

    If any key does not match a sample in the group, nothing is deleted. Samples are deleted in
    batches of 500. Without keys, nothing is deleted.
    """
    from aspencli.cli.changes.views import item_report
    from aspencli.cli.params import chosen_ids, chosen_scope
    from aspencli.samples.edit import delete_samples, find_samples
    from aspencli.tabular.identifiers import KEYS

    context = current(ctx)
    if not keys and file is None:  # as in older versions; stdin is read only for -
        context.out.rows(OUTCOME_COLUMNS, ())
        return context.out.nothing("no samples were given")
    ids = chosen_ids(context, keys, file, KEYS)
    scope = chosen_scope(context, group, pathogen, writing=True)
    samples = context.api().samples
    found = find_samples(samples, scope, ids, by, skip_missing=skip_missing)
    rows = {each.record["id"]: outcome_row(each.sample, "delete") for each in found}
    if dry_run or not rows:
        context.out.rows(OUTCOME_COLUMNS, rows.values())
        if not rows:
            context.out.nothing()
        return context.out.dry_run() if dry_run else None
    context.out.preview(OUTCOME_COLUMNS[:-1], rows.values())
    context.authorise(
        f"delete {counted(len(rows), 'sample')} in {scope}", group=scope.org, items=len(rows)
    )
    with (
        item_report(context.out, OUTCOME_COLUMNS, len(rows), "samples were deleted") as report,
        context.out.progress("Deleting samples", len(rows)) as tick,
    ):
        for gone in delete_samples(samples, scope, sorted(rows)):
            report += [{**rows[id_], "outcome": "deleted"} for id_ in gone]
            tick(len(report))
    context.out.done(f"{counted(len(report), 'sample')} deleted.")
    return None


def _write(
    context: AppContext, scope: Scope, edits: list[Edit], began: float, *, dry_run: bool
) -> None:
    from aspencli.cli.changes.views import item_report
    from aspencli.samples.edit import apply_edits

    changed = [edit for edit in edits if edit.changed]
    context.out.preview(CHANGE_COLUMNS, [row for edit in changed for row in _changes(edit)])
    if changed and not dry_run:
        context.authorise(
            f"update {counted(len(changed), 'sample')} in {scope}",
            group=scope.org,
            items=len(changed),
        )
    done = "update" if dry_run else "updated"
    same = [outcome_row(e.before.sample, "unchanged") for e in edits if not e.changed]
    with (
        item_report(context.out, OUTCOME_COLUMNS, len(changed), "samples were updated") as report,
        context.out.progress("Updating samples", len(changed)) as tick,
    ):
        if dry_run:
            report += [outcome_row(edit.before.sample, done) for edit in changed]
        else:
            check = time.monotonic() - began > _FRESH_S
            for some in apply_edits(context.api().samples, scope, changed, check=check):
                report += [outcome_row(sample, done) for sample in some]
                tick(len(report))
        report.extend(same)
    if not changed:
        context.out.nothing()
    elif not dry_run:
        context.out.done(f"{counted(len(changed), 'sample')} updated, {len(same):,} unchanged.")
    if dry_run:
        context.out.dry_run()


def _changes(edit: Edit) -> list[Row]:
    return [
        {
            "id": edit.after["id"],
            "field": name,
            "before": _shown(edit.value(name, after=False), "(none)"),
            "after": _shown(edit.value(name), "(cleared)"),
        }
        for name in edit.changed
    ]


def _shown(value: Any, missing: str) -> Any:
    return missing if value is None else value
