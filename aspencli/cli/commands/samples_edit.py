"""``aspencli samples update`` and ``delete``, through the API."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aspencli.changes.journal import Recording
from aspencli.cli import params
from aspencli.cli.app import examples, expanded
from aspencli.cli.changes import options
from aspencli.cli.changes.views import OUTCOME_COLUMNS, outcome_row
from aspencli.cli.context import AppContext, current
from aspencli.cli.output.formats import Column, Row, prints
from aspencli.errors import AspenError, BadInputError
from aspencli.text import counted

if TYPE_CHECKING:
    from aspencli.cli.changes.execute import SavedFile
    from aspencli.reference.remote import Scope
    from aspencli.remote.types import Sample
    from aspencli.samples.edit import Edit, ListAge


CHANGE_COLUMNS = (
    Column("id", "Id", right=True, whole=True),
    Column("field", "Field", whole=True),
    Column("before", "Before", whole=True),
    Column("after", "After", whole=True),
)
_CLEAR_WORD = "none"
"""The word that clears a date."""


_UPDATE_EXAMPLES = examples(
    "aspencli samples update RCPHL-0000001 --collection-date 2023-05-17 --private",
    "aspencli samples update --from ids.txt --location 'North America / USA / California'",
)
_DELETE_EXAMPLES = examples(
    "aspencli samples delete RCPHL-0000001 RCPHL-0000002 --dry-run",
    "aspencli samples delete --from ids.txt --yes",
)


def register(app: typer.Typer) -> None:
    """Add the commands to the group ``samples``."""
    app.command(rich_help_panel="Change", epilog=_UPDATE_EXAMPLES)(update)
    app.command(rich_help_panel="Change", epilog=_DELETE_EXAMPLES)(delete)


@dataclass(frozen=True, kw_only=True)
class ChangeOptions:
    """The options for the new values of a sample."""

    private_identifier: Annotated[
        str | None, params.text_option("New private identifier (single sample only).")
    ] = None
    public_identifier: Annotated[
        str | None, params.text_option("New public identifier (single sample only).")
    ] = None
    collection_date: Annotated[
        str | None,
        params.text_option("Date: 2023-05-17, '17 May 2023', '2 days ago'.", metavar="DATE"),
    ] = None
    sequencing_date: Annotated[
        str | None, params.text_option("Date, or 'none' to clear it.", metavar="DATE")
    ] = None
    location: Annotated[
        str | None,
        params.text_option(
            "An id, or Region / Country / Division / Location (the last parts are optional).",
            metavar="ID|PLACE",
        ),
    ] = None
    private: Annotated[
        bool | None,
        typer.Option("--private/--public", help="Hide from, or show to, other groups."),
    ] = None
    missing_words: options.MissingWords = False

    def checked(self, context: AppContext) -> dict[str, Any]:
        """Return the changes under the API's names, but a location as it was given.

        Raises:
            BadInputError: If an identifier or a date is not valid; no request has been made.
        """
        found: dict[str, Any] = {}
        for name in ("private_identifier", "public_identifier"):
            if (text := getattr(self, name)) is not None:
                found[name] = _checked_identifier(name, text, missing_words=self.missing_words)
        for name in ("collection_date", "sequencing_date"):
            said = getattr(self, name)
            if said is None:
                continue
            is_cleared = name == "sequencing_date" and said.strip().lower() == _CLEAR_WORD
            found[name] = None if is_cleared else params.parse_day(context, name, said)
        if self.location is not None:
            found["collection_location"] = self.location
        if self.private is not None:
            found["private"] = self.private
        return found


@expanded
@prints(OUTCOME_COLUMNS)
def update(
    ctx: typer.Context,
    *,
    named: params.KeyOptions,
    given: ChangeOptions,
    json_data: Annotated[
        str | None,
        params.text_option(
            'Updates as JSON, instead of other options: {"samples": [{"id": 7, ...}]}.',
            metavar="JSON",
        ),
    ] = None,
    dry_run: params.DryRunOption = False,
    undo_file: options.UndoFile = None,
    scoped: params.ScopeOptions,
) -> None:
    """Update samples. Fields that are not given stay unchanged.

    Each sample is read, changed, and written back as a whole. An undo file with the old values is
    saved before anything is sent; `samples undo` restores them. To make different changes to many
    samples, use samples bulk-update.
    """
    from aspencli.changes.report import new_undo_file
    from aspencli.reference.remote import Gazetteer
    from aspencli.samples.edit import ListAge, plan_edits, plan_records
    from aspencli.samples.models import KEYS

    context = current(ctx)
    undo_path = new_undo_file(undo_file)
    change = given.checked(context)
    records = _read_records(json_data, bool(change or named.keys or named.file))
    ids = params.chosen_ids(context, named.keys, named.file, KEYS) if records is None else []
    scope = params.chosen_scope(context, scoped, writing=True)
    samples, age = context.api().samples, ListAge()
    if given.location is not None:
        place = Gazetteer(context.api().locations).find(given.location)
        change["collection_location"] = place["id"]
    with age.reading():
        if records is None:
            edits = plan_edits(samples, scope, ids, named.by, change)
        else:
            edits = plan_records(samples, scope, records, missing_words=given.missing_words)
    _write(context, scope, edits, age, undo_path, dry_run=dry_run)


@expanded
@prints(OUTCOME_COLUMNS)
def delete(
    ctx: typer.Context,
    *,
    named: params.KeyOptions,
    skip_missing: params.SkipMissing = False,
    dry_run: params.DryRunOption = False,
    scoped: params.ScopeOptions,
) -> None:
    """Permanently delete samples and their sequences.

    If any key does not match a sample in the group, nothing is deleted. Samples are deleted in
    batches of 500. Without keys, nothing is deleted.

    The metadata of the samples is saved to a JSON file first, without their sequences; run
    `samples download` before to keep those. A deleted sample cannot be restored: `samples create`
    with its sequence restores it as a new sample, with a new id.
    """
    from aspencli.cli.changes.execute import ItemChange, execute
    from aspencli.samples.edit import delete_samples, find_samples
    from aspencli.samples.models import KEYS

    context = current(ctx)
    if not named.keys and named.file is None:  # as in older versions; stdin is read only for -
        context.out.rows(OUTCOME_COLUMNS, ())
        return context.out.nothing("no samples were given")
    ids = params.chosen_ids(context, named.keys, named.file, KEYS)
    scope = params.chosen_scope(context, scoped, writing=True)
    samples = context.api().samples
    found = find_samples(samples, scope, ids, named.by, skip_missing=skip_missing)
    rows = {each.record["id"]: outcome_row(each.sample, "delete") for each in found}

    def remove() -> Iterator[Sequence[Row]]:
        for gone in delete_samples(samples, scope, sorted(rows)):
            yield [{**rows[id_], "outcome": "deleted"} for id_ in gone]

    change = ItemChange(
        context,
        f"delete {counted(len(rows), 'sample')} in {scope}",
        OUTCOME_COLUMNS,
        list(rows.values()),
        remove,
        done=f"{counted(len(rows), 'sample')} deleted.",
        label="Deleting samples",
        partial="samples were deleted",
        save=partial(_save_deleted, context, scope, [each.sample for each in found]),
        group=scope.org,
    )
    return execute(change, dry_run=dry_run)


def _checked_identifier(name: str, text: str, *, missing_words: bool) -> str:
    from aspencli.changes.cells import identifier

    _value, reason = identifier(text.strip(), missing_words=missing_words)
    if reason is not None:
        raise BadInputError(f"--{name.replace('_', '-')} {reason}", hint="Use a different value.")
    return text.strip()


def _read_records(text: str | None, any_other: bool) -> Sequence[Mapping[str, Any]] | None:
    """Return the samples of ``--json-data``, or None if it was not given.

    Raises:
        BadInputError: If the JSON is invalid, or is combined with other options.
    """
    if text is None:
        return None
    if any_other:
        raise BadInputError(
            "--json-data cannot be combined with keys or other updates.",
            hint="Use one or the other.",
        )
    hint = 'Expected: {"samples": [{"id": 7, ...}]}.'
    found = params.parse_json(text, "--json-data", hint)
    samples = found.get("samples") if isinstance(found, dict) else None
    if not isinstance(samples, list):
        raise BadInputError("Invalid value for --json-data: no list of samples", hint=hint)
    return samples


def _save_deleted(
    context: AppContext, scope: Scope, samples: Sequence[Sample], recording: Recording
) -> SavedFile:
    """Save what the API listed of samples that are about to be deleted.

    Raises:
        AspenError: The file cannot be written; nothing was deleted.
    """
    from aspencli import files
    from aspencli.cli.changes.execute import SavedFile

    path = files.state_dir() / "deleted" / f"{recording.id}.json"
    facts = {**_facts_of(context, scope, recording), "samples": samples}
    try:
        files.write_private(path, json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
    except OSError as error:
        reason = files.write_failure(path, error)
        raise AspenError(
            f"Cannot save the metadata of the samples to {path}: {reason}; nothing was deleted.",
            hint="Free disk space or fix the permissions, or set ASPEN_HOME to another directory.",
        ) from error
    return SavedFile(path, partial(_tell_deleted, context, path), undoes=False)


def _facts_of(context: AppContext, scope: Scope, recording: Recording) -> dict[str, Any]:
    return {
        "run": recording.id,
        "target": context.target.label,
        "api": recording.place.api,
        "group_id": scope.org.id,
        "pathogen": scope.slug,
        "listed": dt.datetime.now(dt.UTC).isoformat(),
    }


def _tell_deleted(context: AppContext, path: Path) -> None:
    context.out.info(f"Metadata of the samples: {path}")
    context.out.info("It does not include the sequences.")
    create = context.command("samples", "create")
    context.out.hint(f"To restore a sample as a new one, from its sequence: {create} --help")


def _write(
    context: AppContext,
    scope: Scope,
    edits: list[Edit],
    age: ListAge,
    undo_file: Path | None,
    *,
    dry_run: bool,
) -> None:
    from aspencli.cli.changes.execute import ItemChange, execute
    from aspencli.samples.edit import PlannedEdits

    changed = [edit for edit in edits if edit.changed]
    same = [outcome_row(e.before.sample, "unchanged") for e in edits if not e.changed]
    planned = PlannedEdits(context.api().samples, scope, changed, age)

    def save(recording: Recording) -> SavedFile:
        planned.check()
        return _save_undo(context, scope, changed, undo_file, recording)

    def update() -> Iterator[Sequence[Row]]:
        for some in planned.apply(changed):
            yield [outcome_row(sample, "updated") for sample in some]
        yield same

    change = ItemChange(
        context,
        f"update {counted(len(changed), 'sample')} in {scope}",
        OUTCOME_COLUMNS,
        [*(outcome_row(edit.before.sample, "update") for edit in changed), *same],
        update,
        done=f"{counted(len(changed), 'sample')} updated, {len(same):,} unchanged.",
        details=(CHANGE_COLUMNS, [row for edit in changed for row in _changes(edit)]),
        label="Updating samples",
        partial="samples were updated",
        save=save,
        group=scope.org,
    )
    execute(change, dry_run=dry_run)


def _save_undo(
    context: AppContext,
    scope: Scope,
    edits: list[Edit],
    undo_file: Path | None,
    recording: Recording,
) -> SavedFile:
    from aspen.database.bulk.columns import COLUMNS, PRIVATE, SAMPLES
    from aspen.database.bulk.spec import Spec
    from aspencli import files
    from aspencli.changes.undo import origin_of, write_undo, write_undo_rows
    from aspencli.cli.changes.execute import SavedFile
    from aspencli.samples.edit import changed_columns, undo_rows

    columns = changed_columns(edits)
    spec = Spec(SAMPLES, PRIVATE, tuple(COLUMNS[name] for name in columns), partial=True)
    made = dt.datetime.now(dt.UTC).isoformat()
    origin = origin_of(
        spec,
        context.target.label,
        scope.org.id,
        made,
        len(edits),
        recording.id,
        recording.place,
    )
    rows = partial(write_undo_rows, spec, undo_rows(edits, columns))
    path = write_undo(files.state_dir() / "undo", origin, rows, undo_file)
    undo = context.command("samples", "undo", str(path.absolute()))
    return SavedFile(path, partial(context.out.hint, f"Undo it: {undo}"))


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
