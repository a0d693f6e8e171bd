"""Samples through the API: list and describe them, and find identifiers that match none."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

from aspencli.errors import NotFoundError
from aspencli.reference.remote import LOCATION_LEVELS, Org, Scope, find_both, find_slugs, name_of
from aspencli.remote.api import Api, Location, Sample, SampleRecord, Samples
from aspencli.samples.models import (
    LINEAGE,
    QC_METRIC,
    SITES,
    UPLOADED_GENOME,
    Match,
    SampleDetails,
    SampleKey,
    SampleQuery,
    SampleRow,
    nothing_behind,
    settle_keys,
)

CHUNK = 5_000
"""Identifiers per request; the live service fails at about 16,384."""
_SHOWN = 20
_ACCESSION = "GISAID_ISL"
_AS_IT_IS = 0  # location ID that leaves the location unchanged


def find_missing(
    samples: Samples, scope: Scope, ids: Sequence[str], tick: Callable[[int], None]
) -> list[str]:
    """Return the identifiers that match no sample visible to the user, in the order given.

    They may be public and private identifiers, strain names, and GISAID accessions; ``tick`` is
    called with the number of those checked so far.
    """
    missing: set[str] = set()
    for start in range(0, len(ids), CHUNK):
        some = ids[start : start + CHUNK]
        missing.update(samples.missing(*scope.key, some))
        tick(start + len(some))
    return [each for each in ids if each in missing]


def unknown(missing: Sequence[str], count: int, hint: str) -> NotFoundError:
    """Return the error that lists the unknown ones of this number of identifiers."""
    more = [f"and {len(missing) - _SHOWN:,} more"] if len(missing) > _SHOWN else []
    return NotFoundError(
        f"{len(missing):,} of {count:,} identifiers match no sample that you can see.",
        details=[*missing[:_SHOWN], *more],
        hint=hint,
    )


def pick(samples: Samples, scope: Scope, keep: Callable[[Sample], object]) -> list[Sample]:
    """Return the listed samples for which ``keep`` is true; only these stay in memory."""
    found = samples.map(*scope.key, lambda sample: sample if keep(sample) else None)
    return [sample for sample in found if sample is not None]


class SamplesAsked:
    """The samples that match a query, filtered here because the API has no filters.

    Requests are sent as the query's group, unless the ID, name, or prefix of another one is given.

    Raises:
        NotFoundError: The group, the pathogen, or the sample to continue after does not exist.
        BadInputError: The dates are in the wrong order, or no group was named.
    """

    def __init__(self, api: Api, query: SampleQuery, org: str | None = None):
        query.check()
        self._query = query
        asker, self._owner = find_both(api, org, query.group)
        self._behind: tuple[Any, int] | None = None
        found = [
            row
            for slug in find_slugs(api, query.pathogen)
            for row in api.samples.map(asker.id, slug, self._keep)
            if row is not None
        ]
        if query.after is not None and self._behind is None:
            raise nothing_behind(query.after)
        self._rows = sorted(filter(self._follows, found), key=self._place, reverse=query.reverse)

    def rows(self, limit: int | None = None) -> Iterator[SampleRow]:
        """Return an iterator over the rows; all of them if there is no limit."""
        return islice(self._rows, limit)

    def count(self) -> int:
        """Return the total number of matches."""
        return len(self._rows)

    def _keep(self, sample: Sample) -> SampleRow | None:
        row = listed(sample)
        if row.id == self._query.after:
            self._behind = self._place(row)
        return row if self._fits(row, sample) else None

    def _fits(self, row: SampleRow, sample: Sample) -> bool:
        query, owner = self._query, self._owner
        first, last = query.collected_after, query.collected_before
        return (
            (owner is None or sample["submitting_group"]["id"] == owner.id)
            and (query.private is None or row.private == query.private)
            and (first is None or row.collection_date >= first)
            and (last is None or row.collection_date <= last)
            and (query.location is None or _holds(query.location, row.location))
            and (
                query.search is None
                or _holds(query.search, row.private_identifier, row.public_identifier)
            )
        )

    def _follows(self, row: SampleRow) -> bool:
        if self._behind is None:
            return True
        here = self._place(row)
        return here < self._behind if self._query.reverse else here > self._behind

    def _place(self, row: SampleRow) -> tuple[Any, int]:
        value = getattr(row, self._query.sort.value)
        return ("" if value is None else value), row.id


def describe_asked(
    api: Api,
    keys: Sequence[str],
    *,
    group: str | None,
    by: SampleKey | None,
    org: str | None = None,
    slug: str | None = None,
) -> list[SampleDetails]:
    """Return what the API knows about the samples that the keys name.

    Arguments and errors are those of `aspencli.samples.database.match_samples`.
    """
    asker, owner = find_both(api, org, group)
    finder = Finder(keys, by, owner)
    found: dict[int, Sample] = {}
    for each in find_slugs(api, slug):
        for sample in api.samples.map(asker.id, each, finder.keep):
            if sample is not None:
                found[sample["id"]] = sample
    matches = settle_keys(keys, finder.matches(), within=group)
    return [_describe(found[match.sample_id], match.by) for match in matches]


class Finder:
    """A filter that finds samples by key across several lists; None allows any kind or group."""

    def __init__(self, keys: Iterable[str], by: SampleKey | None, owner: Org | None):
        self._kinds = [by] if by else list(SampleKey)
        self._keys = frozenset(keys)
        self._owner = owner
        self._found: list[Match] = []

    def keep(self, sample: Sample) -> Sample | None:
        """Return the sample if it matches a key, else None."""
        group = sample["submitting_group"]
        if self._owner is not None and group["id"] != self._owner.id:
            return None
        found = False
        for kind in self._kinds:
            value = sample[kind.value]
            if value is not None and str(value) in self._keys:
                self._found.append(Match(str(value), sample["id"], kind, group["name"]))
                found = True
        return sample if found else None

    def matches(self) -> list[Match]:
        """Return all matches so far, ordered by kind of key."""
        return sorted(self._found, key=lambda match: self._kinds.index(match.by))


def listed(sample: Sample) -> SampleRow:
    """Convert an API sample to a row of a list."""
    pathogen = sample["pathogen"]
    return SampleRow(
        sample["id"],
        sample["private_identifier"],
        sample["public_identifier"],
        sample["submitting_group"]["name"],
        pathogen["slug"] if pathogen else "",
        dt.date.fromisoformat(sample["collection_date"]),
        place_of(sample["collection_location"]),
        sample["private"],
        sample["uploaded_by"]["name"],
    )


def place_of(location: Location | None) -> str | None:
    """Format a location as ``Region / Country / Division / Location``; None if there is none."""
    return (name_of(location) or None) if location else None


def _describe(sample: Sample, by: SampleKey) -> SampleDetails:
    row = listed(sample)
    gisaid = sample["gisaid"] or {}
    place: Location | None = sample["collection_location"]  # our own API may return null
    accession = gisaid.get("gisaid_id")
    return SampleDetails(
        id=row.id,
        matched_by=by,
        private_identifier=row.private_identifier,
        public_identifier=row.public_identifier,
        private=row.private,
        group={**_pick(sample["submitting_group"], ("id", "name")), "prefix": None},
        pathogen=_pick(sample["pathogen"] or {}, ("id", "slug", "name")),
        collection_date=row.collection_date,
        location=row.location,
        collection_location=_pick(place, ("id", *LOCATION_LEVELS)) if place else None,
        uploaded_by={**_pick(sample["uploaded_by"], ("id", "name")), "email": None},
        genome=_genome(sample),
        accessions=[{"accession_type": _ACCESSION, "accession": accession}] if accession else [],
        lineages=_each(sample["lineages"], LINEAGE),
        qc_metrics=_each(sample["qc_metrics"], QC_METRIC),
    )


def _genome(sample: Sample) -> dict[str, Any] | None:
    if sample["upload_date"] is None:
        return None
    known = {"upload_date": sample["upload_date"], "sequencing_date": sample["sequencing_date"]}
    keys = ("length", *UPLOADED_GENOME, "sequencing_date", *SITES)
    return {key: known.get(key) for key in keys}


def _each(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> list[dict[str, Any]]:
    ordered = sorted(rows, key=lambda row: str(row[names[0]]))
    return [_pick(row, names) for row in ordered]


def _pick(row: Any, names: Iterable[str]) -> dict[str, Any]:
    return {name: row.get(name) for name in names}


def _holds(part: str, *texts: str | None) -> bool:
    return any(part.lower() in text.lower() for text in texts if text is not None)


class ListedSample(NamedTuple):
    """A sample of the group, with all fields that an update has to write."""

    id: int
    private_identifier: str
    public_identifier: str
    private: bool
    collection_date: str
    sequencing_date: str | None

    def named(self, public: str) -> SampleRecord:
        """Return the record that renames it and leaves everything else unchanged."""
        return {
            "id": self.id,
            "collection_location": _AS_IT_IS,
            "private": self.private,
            "private_identifier": self.private_identifier,
            "public_identifier": public,
            "collection_date": self.collection_date,
            "sequencing_date": self.sequencing_date,
        }


@dataclass(frozen=True)
class Snapshot:
    """The group's samples, by ID, as the API listed them at one moment.

    ``elsewhere`` has the public identifiers of visible samples in other groups.
    """

    samples: dict[int, ListedSample]
    elsewhere: frozenset[str]

    def holders(self) -> dict[str, ListedSample]:
        """Return the group's samples by public identifier, which is unique within the group."""
        return {held.public_identifier: held for held in self.samples.values()}


@dataclass(frozen=True)
class GroupSamples:
    """A group's samples in the API, with all pathogens: names are unique in a group across them.

    Requests are sent as this group.
    """

    samples: Samples
    group_id: int
    slugs: Sequence[str]

    @property
    def slug(self) -> str:
        """Return the pathogen for the path of change requests; the service does not check it."""
        return self.slugs[0]

    def read(self) -> Snapshot:
        """Fetch the list."""
        samples: dict[int, ListedSample] = {}
        elsewhere: set[str] = set()

        def keep(sample: Sample) -> None:
            public = sample["public_identifier"] or ""
            if sample["submitting_group"]["id"] == self.group_id:
                samples[sample["id"]] = ListedSample(
                    sample["id"],
                    sample["private_identifier"] or "",
                    public,
                    sample["private"],
                    sample["collection_date"],
                    sample["sequencing_date"],
                )
            else:
                elsewhere.add(public)

        for slug in self.slugs:
            self.samples.map(self.group_id, slug, keep)
        return Snapshot(samples, frozenset(elsewhere))

    def has(self, names: Iterable[str]) -> bool:
        """Return True if every one of these names matches a sample."""
        return not self.samples.missing(self.group_id, self.slug, list(names))
