"""Samples updated and deleted through the API in batches, each all or nothing.

The API replaces whole records. A sample is therefore read first, and only the named fields of its
record change, so that nothing is lost.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from aspen.database.bulk.columns import COLUMNS
from aspencli.changes.cells import identifier
from aspencli.changes.undo import UndoRow
from aspencli.errors import BadInputError, ConflictError
from aspencli.reference.remote import Scope
from aspencli.remote.types import Sample, SampleRecord
from aspencli.samples.keys import IDENTIFIERS, SampleKey
from aspencli.samples.models import settle_keys
from aspencli.samples.remote import find_keys, pick
from aspencli.tabular.dates import day_flaw, read_day
from aspencli.text import counted

if TYPE_CHECKING:
    from aspencli.remote.api import Samples

_FRESH_S, _LONGEST_S = 10.0, 120.0
EDIT_CHUNK = 250
"""Samples per request; the live service's response time grows with its square."""
DELETE_CHUNK = 500
SAFE = ("collection_location", "private", "collection_date", "sequencing_date")
FIELDS = (*IDENTIFIERS, *SAFE)
"""The sample fields that can be changed."""
_TYPES: Mapping[str, type] = {"collection_location": int, "private": bool}


@dataclass(frozen=True)
class EditableSample:
    """A sample's writable record, along with everything that the API returns."""

    record: SampleRecord
    sample: Sample


def find_samples(
    samples: Samples,
    scope: Scope,
    keys: Sequence[str],
    by: SampleKey | None,
    *,
    skip_missing: bool = False,
) -> list[EditableSample]:
    """Return the group's own samples that the keys name, in the given order, without duplicates.

    Keys are IDs, private identifiers, and public identifiers; ``by`` restricts them to one kind.
    ``skip_missing`` ignores keys that match none of these samples.

    Raises:
        NotFoundError: A key matches none of these samples.
        BadInputError: A key matches several of them.
    """
    matches, found = find_keys(samples, scope.org, [scope.slug], keys, by, scope.org)
    if skip_missing:
        named = {match.key for match in matches}
        keys = [key for key in keys if key in named]
    matches = settle_keys(keys, matches, within=f"{scope.org.id}, {scope.slug}")
    return [held(found[match.sample_id]) for match in matches]


def read_again(samples: Samples, scope: Scope, ids: Iterable[int]) -> dict[int, Sample]:
    """Return the current state of the samples with these IDs, without those now deleted."""
    wanted = frozenset(ids)
    found = pick(samples, scope, lambda sample: sample["id"] in wanted)
    return {sample["id"]: sample for sample in found}


def held(sample: Sample) -> EditableSample:
    """Return a sample along with its writable record.

    Raises:
        BadInputError: The API withholds its private identifier.
    """
    private = sample["private_identifier"]
    if private is None:
        raise BadInputError(
            f"Cannot update sample {sample['id']} of {sample['submitting_group']['name']}: "
            "your group cannot see its private identifier.",
            hint=f"Send the request as that group: --group {sample['submitting_group']['id']}",
        )
    return EditableSample(record_of(sample, private), sample)


def record_of(sample: Sample, private_identifier: str) -> SampleRecord:
    """Return a sample's writable fields; location 0 leaves a missing location as it is."""
    place: Mapping[str, object] | None = sample["collection_location"]
    return {
        "id": sample["id"],
        "collection_location": sample["collection_location"]["id"] if place else 0,
        "private": sample["private"],
        "private_identifier": private_identifier,
        "public_identifier": sample["public_identifier"],
        "collection_date": sample["collection_date"],
        "sequencing_date": sample["sequencing_date"],
    }


@dataclass(frozen=True)
class Edit:
    """A sample before and after a change."""

    before: EditableSample
    after: SampleRecord

    @property
    def changed(self) -> list[str]:
        """Return the fields that change."""
        return [name for name in FIELDS if self.value(name) != self.value(name, after=False)]

    def value(self, name: str, *, after: bool = True) -> Any:
        """Return a field's value after the change, or before it."""
        record: Mapping[str, Any] = self.after if after else self.before.record
        return record[name]


STORED = {name: name for name in COLUMNS} | {"location": "collection_location"}
"""The field of the API for each column of `aspen.database.bulk.columns.COLUMNS`."""


def cell_of(record: SampleRecord, column: str) -> str | None:
    """Return the value of a column as text, as undo files have it; None for a missing value."""
    fields: Mapping[str, Any] = record
    value = fields[STORED[column]]
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value) if value else None  # 0 stands for a missing location
    return None if value is None else str(value)


def value_of(column: str, cell: str | None) -> Any:
    """Return the value that the API takes for a cell of an undo file."""
    if cell is None:
        return None
    kind = _TYPES.get(STORED[column], str)
    return cell == "true" if kind is bool else kind(cell)


def changed_columns(edits: Iterable[Edit]) -> list[str]:
    """Return the columns that any of the edits changes, in the order of undo files."""
    changed = {name for edit in edits for name in edit.changed}
    return [column for column, name in STORED.items() if name in changed]


def undo_rows(edits: Iterable[Edit], columns: Sequence[str]) -> Iterator[UndoRow]:
    """Yield the row of an undo file for each edit, with its new and old values."""
    for edit in edits:
        pairs = [
            (cell_of(edit.after, column), cell_of(edit.before.record, column)) for column in columns
        ]
        values = [None if new == old else (new, old) for new, old in pairs]
        yield UndoRow(edit.after["id"], edit.after["private_identifier"], values)


def plan_edits(
    samples: Samples,
    scope: Scope,
    keys: Sequence[str],
    by: SampleKey | None,
    changes: Mapping[str, Any],
) -> list[Edit]:
    """Return the edits for the samples that the keys name; see `find_samples`.

    The changes are the new values, by the names in `FIELDS`.

    Raises:
        BadInputError: There are no changes, or several samples would get the same identifier.
        NotFoundError: A key matches none of the group's own samples.
    """
    if not changes:
        raise BadInputError("No changes given.", hint="See: aspencli samples update --help")
    found = find_samples(samples, scope, keys, by)
    shared = [name for name in IDENTIFIERS if name in changes]
    if shared and len(found) > 1:
        raise BadInputError(
            f"{len(found)} samples cannot share one {shared[0]}.",
            hint="Give one sample. To change many identifiers: aspencli samples bulk-update FILE",
        )
    return [_edit(each, changes) for each in found]


def plan_records(
    samples: Samples,
    scope: Scope,
    wanted: Sequence[Mapping[str, Any]],
    *,
    missing_words: bool = False,
) -> list[Edit]:
    """Return the edits for records that each name a sample by ``id`` and its new values.

    Raises:
        BadInputError: A record has no ID, or a field that cannot be changed.
        NotFoundError: A record is for none of the group's own samples.
    """
    by_id: dict[str, Mapping[str, Any]] = {}
    for number, each in enumerate(wanted):
        _check_record(number, each, missing_words=missing_words)
        if by_id.setdefault(str(each["id"]), each) is not each:
            raise BadInputError(f"Sample {each['id']} is listed twice.", hint="List it once.")
    if not by_id:
        return []
    found = find_samples(samples, scope, list(by_id), SampleKey.ID)
    return [_edit(each, by_id[str(each.record["id"])]) for each in found]


def trusted_for(seconds: float) -> float:
    """Return for how long, in seconds, a list that took ``seconds`` to read is not read again.

    A large group's list takes minutes, and is as old when it has arrived, so that reading it again
    after a shorter wait would hardly make it newer.
    """
    return min(max(_FRESH_S, seconds), _LONGEST_S)  # the seconds may include retries


class ListAge:
    """The age of the data read from a list of samples."""

    def __init__(self) -> None:
        self._read, self._seconds = -math.inf, 0.0

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Read the list within the block."""
        began = time.monotonic()
        yield
        self._read = time.monotonic()
        self._seconds = self._read - began

    @property
    def is_old(self) -> bool:
        """Return True if the list has to be read again before anything is overwritten."""
        return time.monotonic() - self._read > trusted_for(self._seconds)


class PlannedEdits:
    """Edits of samples in one list, applied in batches that are each all or nothing.

    Each request replaces whole records, so those still to be sent are read again first whenever the
    list is too old.

    Args:
        samples: The client.
        scope: The group and the pathogen of the list.
        edits: All edits.
        age: The age of the list that they were planned with.
    """

    def __init__(self, samples: Samples, scope: Scope, edits: Iterable[Edit], age: ListAge):
        self._samples, self._scope, self._age = samples, scope, age
        self._left = {edit.after["id"]: edit for edit in edits}

    def check(self, state: str = "nothing was changed") -> None:
        """Check that no sample changed since the plan, unless the plan is new.

        Raises:
            ConflictError: A sample did.
        """
        if not self._left or not self._age.is_old:
            return
        with self._age.reading():
            now = read_again(self._samples, self._scope, self._left)
        moved = [e for id_, e in self._left.items() if not _is(now.get(id_), e.before.record)]
        if moved:
            raise _moved(moved, state)

    def apply(self, edits: Sequence[Edit]) -> Iterator[list[Sample]]:
        """Apply some of the edits, yielding each batch's updated samples.

        Raises:
            ConflictError: A sample changed since the plan.
            AspenError: A batch was rejected; the batches yielded before are done.
        """
        samples, scope = self._samples, self._scope
        for start in range(0, len(edits), EDIT_CHUNK):
            some = edits[start : start + EDIT_CHUNK]
            self.check("the rest was not sent")
            records = [edit.after for edit in some]
            done = samples.replace(*scope.key, records, partial(_read_edited, samples, scope, some))
            for record in records:
                del self._left[record["id"]]
            yield done


def _read_edited(samples: Samples, scope: Scope, edits: Sequence[Edit]) -> list[Sample] | None:
    """Return the samples updated by a request whose response was lost, or None if it failed."""
    now = read_again(samples, scope, [edit.after["id"] for edit in edits])
    if all(_is(now.get(edit.after["id"]), edit.after) for edit in edits):
        return list(now.values())
    moved = [edit for edit in edits if not _is(now.get(edit.after["id"]), edit.before.record)]
    if moved:
        raise _moved(moved, "the response to the update was lost")
    return None


def _is(sample: Sample | None, record: SampleRecord) -> bool:
    if sample is None:
        return False
    there = record_of(sample, sample["private_identifier"] or "")
    return there == record


def _moved(edits: Sequence[Edit], state: str) -> ConflictError:
    return ConflictError(
        f"Another user changed {counted(len(edits), 'sample')} in the meantime; {state}.",
        details=[f"sample {edit.after['id']}" for edit in edits[:20]],
        hint="Run the command again to make a new plan.",
    )


def _edit(before: EditableSample, changes: Mapping[str, Any]) -> Edit:
    known: Any = {**before.record, **{name: changes[name] for name in FIELDS if name in changes}}
    return Edit(before, known)


def _check_record(number: int, record: Any, *, missing_words: bool) -> None:
    place = f"samples[{number}]"
    if not isinstance(record, Mapping) or not isinstance(record.get("id"), int):
        raise BadInputError(f"{place} has no id.", hint="Every entry needs the ID of its sample.")
    unknown = [name for name in record if name not in FIELDS and name != "id"]
    if unknown:
        raise BadInputError(
            f"{place} has fields that cannot be updated: {', '.join(unknown)}",
            hint=f"Fields that can be updated: {', '.join(FIELDS)}.",
        )
    for name in FIELDS:
        if name in record:
            _check_value(f"{place}.{name}", name, record[name], missing_words=missing_words)


def _check_value(place: str, name: str, value: Any, *, missing_words: bool) -> None:
    kind, flaw, hint = _TYPES.get(name, str), "", "Fix it, then run the command again."
    fits = type(value) is kind
    if value is None:
        if name != "sequencing_date":
            flaw, hint = " cannot be null.", "Leave it out to keep the current value."
    elif not fits:
        wanted = {bool: "true or false", int: "a number"}.get(kind, "a string")
        flaw = f" is {value!r}, but must be {wanted}."
    elif kind is int and value < 1:  # The service would keep the current location.
        flaw = f" is {value}, which is not the ID of a location."
        hint = "Leave it out to keep the current location."
    elif name in IDENTIFIERS:
        reason = identifier(value.strip(), missing_words=missing_words)[1]
        flaw = f" {reason}." if reason else ""
    elif name.endswith("_date") and read_day(value) != value:
        flaw = f": {day_flaw(value)}"
    if flaw:
        raise BadInputError(f"{place}{flaw}", hint=hint)


def delete_samples(samples: Samples, scope: Scope, ids: Sequence[int]) -> Iterator[list[int]]:
    """Delete samples in batches, yielding the deleted IDs of each batch.

    Raises:
        AspenError: A batch was rejected; the batches yielded before are deleted.
    """
    for start in range(0, len(ids), DELETE_CHUNK):
        some = ids[start : start + DELETE_CHUNK]
        samples.delete(*scope.key, some, partial(_read_deleted, samples, scope, some))
        yield list(some)


def _read_deleted(samples: Samples, scope: Scope, ids: Sequence[int]) -> list[int] | None:
    """Return the IDs deleted by a request whose response was lost, or None if it deleted none."""
    there = read_again(samples, scope, ids)
    if not there:
        return list(ids)
    if len(there) == len(ids):
        return None
    raise ConflictError(
        f"{len(ids) - len(there):,} of {len(ids):,} samples no longer exist: another user deleted "
        "some of them.",
        hint="Run the command again with --skip-missing.",
    )
