"""The files in the bucket beside the rows of the database: which belong together, and which differ.

A job writes a file before the row that refers to it. So a file without a row may belong to a job
that has not ended: files of running tree runs, and those that are younger than a limit, are not
reported.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from aspen.workflows.store import RUNS, FileKind, parse_key
from aspencli.errors import AspenError, NotFoundError

if TYPE_CHECKING:
    from aspencli.storage.bucket import Bucket, StoredObject
    from aspencli.storage.database import Records, Reference

_RECORDED = frozenset({FileKind.TREE, FileKind.RAW, FileKind.PROCESSED, FileKind.ALIGNED})
"""The kinds of files that a row refers to by their keys."""
# The beginning of the keys of a kind; those of the others have none in common.
_PREFIXES = {
    FileKind.TREE: RUNS,
    FileKind.BUILD: RUNS,
    FileKind.INCLUDE: RUNS,
    FileKind.RAW: "raw_",
    FileKind.PROCESSED: "processed_",
    FileKind.ALIGNED: "aligned_",
    FileKind.LINEAGES: "pangolin_lineages/",
}


@dataclass(frozen=True)
class StoredFile:
    """An object with what the database knows about it."""

    object: StoredObject
    kind: FileKind
    run: int | None = None
    tree: int | None = None
    group_id: int | None = None
    group: str | None = None
    row: str | None = None  # the table and ID of the row that refers to it
    is_running: bool = False  # its run has not ended


class Problem(StrEnum):
    """A difference between the bucket and the database."""

    NO_OBJECT = "no-object"
    """A row refers to an object that does not exist."""
    NO_ROW = "no-row"
    """No row refers to an object, although one should."""


@dataclass(frozen=True)
class Difference:
    """An object without a row, or a row without an object."""

    problem: Problem
    kind: FileKind
    bucket: str
    key: str
    object: StoredObject | None
    row: str | None
    run: int | None
    tree: int | None
    group: str | None


@dataclass
class Compared:
    """The result of a comparison.

    Attributes:
        differences: The differences, by bucket and key.
        objects: The number of objects of the compared kinds.
        rows: The number of rows that refer to objects of these kinds.
        young: The number of objects without a row that are too young to be reported.
        unread: Buckets that could not be listed, with the errors.
    """

    differences: list[Difference] = field(default_factory=list)
    objects: int = 0
    rows: int = 0
    young: int = 0
    unread: dict[str, AspenError] = field(default_factory=dict)


def prefix_of(kinds: Iterable[FileKind], *, of_run: bool = False, own: Iterable[str] = ()) -> str:
    """Return what the keys of all files of these kinds, or of a run, begin with.

    Args:
        kinds: The kinds.
        of_run: True for the files of a run, whatever their kind.
        own: Keys that rows refer to, which may be of another form, such as those of copies.
    """
    known = [RUNS] if of_run else [_PREFIXES.get(kind, "") for kind in kinds]
    return _common([*known, *own])


def _common(keys: Iterable[str]) -> str:
    """Return what all keys begin with."""
    known = sorted(keys)
    first, last = known[0], known[-1]
    differ = (at for at, (one, other) in enumerate(zip(first, last, strict=False)) if one != other)
    return first[: next(differ, min(len(first), len(last)))]


def describe(found: StoredObject, records: Records) -> StoredFile:
    """Return an object with what the database knows about it."""
    meaning = parse_key(found.key)
    reference = records.references.get((found.bucket, found.key))
    number = meaning.run_id if reference is None or reference.run is None else reference.run
    run = records.runs.get(number) if number is not None else None
    if reference is not None:
        return _referenced(found, reference)
    if run is None:
        return StoredFile(found, meaning.kind, run=meaning.run_id)
    return StoredFile(
        found,
        meaning.kind,
        run=run.id,
        tree=run.tree,
        group_id=run.group_id,
        group=run.group,
        row=None if meaning.kind in _RECORDED else f"phylo_runs {run.id}",
        is_running=run.is_running,
    )


def _referenced(found: StoredObject, reference: Reference) -> StoredFile:
    return StoredFile(
        found,
        kind_of(reference),
        run=reference.run,
        tree=reference.tree,
        group_id=reference.group_id,
        group=reference.group,
        row=reference.name,
    )


def kind_of(reference: Reference) -> FileKind:
    """Return the kind of the object that a row refers to; its key may be of any form."""
    if reference.tree is not None:
        return FileKind.TREE
    kinds = {"raw": FileKind.RAW, "processed": FileKind.PROCESSED, "aligned": FileKind.ALIGNED}
    if reference.table == "aligned_peptides":
        return FileKind.OTHER
    return kinds[reference.table.partition("_")[0]]


def needs_row(file: StoredFile) -> bool:
    """Return True if an object without a row should have one."""
    return file.row is None and (file.kind in _RECORDED or file.run is not None)


def compare(
    main: Bucket,
    others: Iterable[Bucket],
    records: Records,
    kinds: frozenset[FileKind],
    *,
    youngest: dt.datetime,
) -> Compared:
    """Compare the bucket, and other buckets that rows refer to, with the database.

    Of other buckets, only the objects that rows refer to are looked for.

    Args:
        main: The deployment's own bucket.
        others: The other buckets.
        records: The database's side, read before the buckets are listed.
        kinds: The kinds of files to compare.
        youngest: Objects that changed after this time are not reported.
    """
    result = Compared()
    wanted = {
        place: reference
        for place, reference in records.references.items()
        if kind_of(reference) in kinds
    }
    result.rows = len(wanted)
    present = set[tuple[str, str]]()
    own = [key for bucket, key in wanted if bucket == main.name]
    for found in main.objects(prefix_of(kinds, own=own)):
        present.add((found.bucket, found.key))
        file = describe(found, records)
        if file.kind not in kinds:
            continue
        result.objects += 1
        if not needs_row(file) or file.is_running:
            continue
        if found.modified > youngest:
            result.young += 1
        else:
            result.differences.append(_without_row(file))
    for bucket in others:
        keys = [key for name, key in wanted if name == bucket.name]
        try:
            present |= {(one.bucket, one.key) for one in bucket.objects(_common(keys))}
        except NotFoundError:  # then none of its objects exists
            continue
        except AspenError as error:  # reported after the rest was compared
            result.unread[bucket.name] = error
    result.differences += _without_objects(wanted.values(), present, result.unread)
    result.differences.sort(key=lambda one: (one.bucket, one.key))
    return result


def _without_row(file: StoredFile) -> Difference:
    return Difference(
        Problem.NO_ROW,
        file.kind,
        file.object.bucket,
        file.object.key,
        file.object,
        None,
        file.run,
        None,
        file.group,
    )


def _without_objects(
    references: Iterable[Reference],
    present: set[tuple[str, str]],
    unread: dict[str, AspenError],
) -> Iterator[Difference]:
    for one in references:
        if (one.bucket, one.key) in present or one.bucket in unread:
            continue
        yield Difference(
            Problem.NO_OBJECT,
            kind_of(one),
            one.bucket,
            one.key,
            None,
            one.name,
            one.run,
            one.tree,
            one.group,
        )
