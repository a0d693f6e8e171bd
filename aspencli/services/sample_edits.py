"""Edit individual samples through the API: only the named fields change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from aspencli.errors import BadInputError, ConflictError
from aspencli.services.cells import identifier
from aspencli.services.dates import read_day, why_no_day
from aspencli.services.orgs import Scope
from aspencli.services.sample_fields import SampleKey
from aspencli.services.sample_records import Held, Replacer, find_samples, read_again, record_of
from aspencli.shapes import Sample, SampleRecord

CHUNK = 250
"""Samples per request; the live service's response time grows with its square."""
SAFE = ("collection_location", "private", "collection_date", "sequencing_date")
IDENTIFIERS = ("private_identifier", "public_identifier")
FIELDS = (*IDENTIFIERS, *SAFE)
"""The sample fields that can be changed."""
_TYPES: Mapping[str, type] = {"collection_location": int, "private": bool}


@dataclass(frozen=True)
class Edit:
    """A sample before and after a change."""

    before: Held
    after: SampleRecord

    @property
    def changed(self) -> list[str]:
        """Return the fields that change."""
        return [name for name in FIELDS if self.value(name) != self.value(name, after=False)]

    def value(self, name: str, *, after: bool = True) -> Any:
        """Return a field's value after the change, or before it."""
        record: Mapping[str, Any] = self.after if after else self.before.record
        return record[name]


def plan_edits(
    samples: Replacer,
    scope: Scope,
    keys: Sequence[str],
    by: SampleKey | None,
    changes: Mapping[str, Any],
) -> list[Edit]:
    """Return the edits for the samples that the keys name.

    Args:
        samples: The API.
        scope: The group and the pathogen.
        keys: IDs, private identifiers, and public identifiers.
        by: The kind of the keys; None for any.
        changes: The new values, by the names in `FIELDS`.

    Raises:
        BadInputError: There are no changes, or several samples would get the same identifier.
        NotFoundError: A key matches none of the group's own samples.
    """
    if not changes:
        raise BadInputError(
            "nothing was said to change", hint="Name what: see aspencli samples update --help."
        )
    found = find_samples(samples, scope, keys, by)
    shared = [name for name in IDENTIFIERS if name in changes]
    if shared and len(found) > 1:
        raise BadInputError(
            f"{len(found)} samples cannot have one {shared[0]}",
            hint="Name one sample; many identifiers come from a file: samples bulk-update.",
        )
    return [_edit(each, changes) for each in found]


def plan_records(
    samples: Replacer,
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
            raise BadInputError(f"sample {each['id']} is there twice", hint="Name it once.")
    if not by_id:
        return []
    found = find_samples(samples, scope, list(by_id), SampleKey.ID)
    return [_edit(each, by_id[str(each.record["id"])]) for each in found]


def apply_edits(
    samples: Replacer, scope: Scope, edits: Sequence[Edit], *, check: bool
) -> Iterator[list[Sample]]:
    """Apply the edits in batches, each all or nothing, yielding each batch's updated samples.

    Args:
        samples: The API.
        scope: The group and the pathogen.
        edits: The edits that change something.
        check: True to check first that nothing changed since the plan.

    Raises:
        ConflictError: A sample changed since the plan.
        AspenError: A batch was rejected; the batches yielded before are done.
    """
    if check:
        now = read_again(samples, scope, [edit.after["id"] for edit in edits])
        moved = [edit for edit in edits if not _is(now.get(edit.after["id"]), edit.before.record)]
        if moved:
            raise _moved(moved, "nothing was changed")
    for start in range(0, len(edits), CHUNK):
        some = edits[start : start + CHUNK]
        yield samples.replace(
            *scope.key, [edit.after for edit in some], partial(_look, samples, scope, some)
        )


def _look(samples: Replacer, scope: Scope, edits: Sequence[Edit]) -> list[Sample] | None:
    """Return the samples updated by a request whose response was lost, or None if it failed."""
    now = read_again(samples, scope, [edit.after["id"] for edit in edits])
    if all(_is(now.get(edit.after["id"]), edit.after) for edit in edits):
        return list(now.values())
    moved = [edit for edit in edits if not _is(now.get(edit.after["id"]), edit.before.record)]
    if moved:
        raise _moved(moved, "and the answer to the change was lost")
    return None


def _is(sample: Sample | None, record: SampleRecord) -> bool:
    if sample is None:
        return False
    there = record_of(sample, sample["private_identifier"] or "")
    return there == record


def _moved(edits: Sequence[Edit], state: str) -> ConflictError:
    return ConflictError(
        f"{len(edits):,} samples changed since they were looked at; {state}",
        details=[f"sample {edit.after['id']}" for edit in edits[:20]],
        hint="Run it again: it looks anew.",
    )


def _edit(before: Held, changes: Mapping[str, Any]) -> Edit:
    known: Any = {**before.record, **{name: changes[name] for name in FIELDS if name in changes}}
    return Edit(before, known)


def _check_record(number: int, record: Any, *, missing_words: bool) -> None:
    place = f"samples[{number}]"
    if not isinstance(record, Mapping) or not isinstance(record.get("id"), int):
        raise BadInputError(f"{place} has no id", hint="Each names the sample that it is about.")
    unknown = [name for name in record if name not in FIELDS and name != "id"]
    if unknown:
        raise BadInputError(
            f"{place} has something that cannot be changed of a sample: {', '.join(unknown)}",
            hint=f"These can: {', '.join(FIELDS)}.",
        )
    for name in FIELDS:
        if name in record:
            _check_value(f"{place}.{name}", name, record[name], missing_words=missing_words)


def _check_value(place: str, name: str, value: Any, *, missing_words: bool) -> None:
    if value is None and name != "sequencing_date":
        raise BadInputError(
            f"{place} is null, and every sample has one",
            hint="Leave it out, and it stays as it is.",
        )
    if value is not None and type(value) is not _TYPES.get(name, str):
        wanted = {bool: "true or false", int: "a number"}.get(_TYPES.get(name, str), "a text")
        raise BadInputError(f"{place} is {value!r}, and has to be {wanted}", hint="Mend it.")
    if isinstance(value, str) and name in IDENTIFIERS:
        reason = identifier(value.strip(), missing_words=missing_words)[1]
        if reason is not None:
            raise BadInputError(f"{place} {reason}", hint="Fix it, then run the command again.")
    if isinstance(value, str) and name.endswith("_date") and read_day(value) != value:
        raise BadInputError(f"{place}: {why_no_day(value)}", hint="Mend it.")
