"""Samples through the API: list and describe them, and find identifiers that match none."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from heapq import nlargest, nsmallest
from itertools import count
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from aspencli.errors import AspenError, NotFoundError
from aspencli.reference.remote import LOCATION_LEVELS, Org, Scope, find_both, find_slugs, name_of
from aspencli.remote.types import Location, Sample, SampleRecord
from aspencli.samples.keys import SampleKey
from aspencli.samples.models import (
    LINEAGE,
    QC_METRIC,
    SITES,
    UPLOADED_GENOME,
    Match,
    SampleDetails,
    SampleQuery,
    SampleRow,
    SampleSort,
    nothing_behind,
    settle_keys,
)

if TYPE_CHECKING:
    from sqlite3 import Connection

    from aspencli.remote.api import Api, Samples

CHUNK = 5_000
"""Identifiers per request; the live service fails at about 16,384."""
_SHOWN = 20
_ACCESSION = "GISAID_ISL"
_AS_IT_IS = 0  # location ID that leaves the location unchanged
_COLLECTED = 5  # the place of the collection date in a row
_FEW = 1_000  # samples that may be held in memory
_CACHE_KIB = 16_384  # room for 60,000 rows
_Placed: TypeAlias = tuple[int | bytes, int, Sample]
"""What to sort a sample by, its ID, and the sample."""


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


def pick(samples: Samples, scope: Scope, keep: Callable[[Sample], bool]) -> list[Sample]:
    """Return the listed samples for which ``keep`` is true; only these stay in memory."""
    return samples.read(*scope.key, lambda found: [each for each in found if keep(each)])


@contextmanager
def list_asked(
    api: Api, query: SampleQuery, org: str | None = None, limit: int | None = None
) -> Iterator[SamplesAsked]:
    """Yield the samples that match a query, of which only as many as the limit will be shown.

    Requests are sent as the query's group, unless the ID, name, or prefix of another one is given.

    Raises:
        NotFoundError: The group, the pathogen, or the sample to continue after does not exist.
        BadInputError: The dates are in the wrong order, or no group was named.
        AspenError: The temporary file cannot be written.
    """
    query.check()
    asker, owner = find_both(api, org, query.group)
    slugs = find_slugs(api, query.pathogen)
    with _temporary_database() as database:
        found = SamplesAsked(database, query, owner, limit)
        for slug in slugs:
            api.samples.read(asker.id, slug, found.store)
        found.cut()
        yield found


@contextmanager
def _temporary_database() -> Iterator[Connection]:
    import sqlite3  # only lists need it

    try:
        with closing(sqlite3.connect("")) as database:
            yield database
    except sqlite3.Error as error:
        raise AspenError(
            f"Cannot keep the list of samples in a temporary file: {error}",
            hint="Free disk space, or set TMPDIR to another directory.",
        ) from error


class SamplesAsked:
    """The samples that match a query, filtered and sorted here because the API can do neither.

    A group may have a million of them, so those that may be shown are kept in a temporary database
    of SQLite. Its file has no name, and is written only if they do not fit into the cache.
    """

    def __init__(
        self, database: Connection, query: SampleQuery, owner: Org | None, limit: int | None
    ):
        self._database = database
        self._query, self._owner = query, owner
        # The place of the sample to continue after is known from the start only in order of ID.
        self._starts_anywhere = query.after is not None and query.sort is not SampleSort.ID
        self._limit: int | None = None
        if limit is not None and limit < _FEW and not self._starts_anywhere:
            self._limit = limit + 1  # one more shows that there are more
        self._behind: tuple[int | bytes, int] | None = None
        self._left_out = 0
        database.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        database.execute("CREATE TABLE found (place, id, row)")

    def store(self, samples: Iterable[Sample]) -> None:
        """Store the samples that match; none of them if the list turns out to be incomplete."""
        number = count()
        rows: Iterable[_Placed]
        rows = (row for row, _ in zip(self._matching(samples), number, strict=False))
        if self._limit is not None:
            first = nlargest if self._query.reverse else nsmallest
            rows = first(self._limit, rows, key=itemgetter(0, 1))
        stored = ((place, id_, json.dumps(_values(sample))) for place, id_, sample in rows)
        with self._database:  # a transaction
            cursor = self._database.executemany("INSERT INTO found VALUES (?, ?, ?)", stored)
        self._left_out += next(number) - cursor.rowcount

    def cut(self) -> None:
        """Remove the samples up to the one to continue after.

        Raises:
            NotFoundError: It is in none of the lists.
        """
        if self._query.after is None:
            return
        if self._behind is None:
            raise nothing_behind(self._query.after)
        passed = ">=" if self._query.reverse else "<="
        statement = f"DELETE FROM found WHERE (place, id) {passed} (?, ?)"  # noqa: S608 - constants
        self._database.execute(statement, self._behind)

    def rows(self, limit: int | None = None) -> Generator[SampleRow, None, None]:
        """Yield the rows in order; all of them if there is no limit."""
        order = "place DESC, id DESC" if self._query.reverse else "place, id"
        statement = f"SELECT row FROM found ORDER BY {order} LIMIT ?"  # noqa: S608 - constants
        for (row,) in self._database.execute(statement, (-1 if limit is None else limit,)):
            yield _row_of(json.loads(row))

    def count(self) -> int:
        """Return the total number of matches."""
        (found,) = self._database.execute("SELECT count(*) FROM found").fetchone()
        return int(found) + self._left_out

    def _matching(self, samples: Iterable[Sample]) -> Iterator[_Placed]:
        sorts = self._query.sort.value
        for sample in samples:
            place = sample[sorts]  # type: ignore[literal-required] # it has the names of the API
            if not isinstance(place, int):
                # Bytes have the order of the characters, and any text can be stored as bytes.
                place = (place or "").encode("utf-8", "surrogatepass")
            if sample["id"] == self._query.after:
                self._behind = place, sample["id"]
            if self._fits(sample):
                yield place, sample["id"], sample

    def _fits(self, sample: Sample) -> bool:
        query, owner = self._query, self._owner
        first, last = query.collected_after, query.collected_before
        collected = dt.date.fromisoformat(sample["collection_date"])
        return (
            (query.after is None or self._starts_anywhere or self._follows(sample["id"]))
            and (owner is None or sample["submitting_group"]["id"] == owner.id)
            and (query.private is None or sample["private"] == query.private)
            and (first is None or collected >= first)
            and (last is None or collected <= last)
            and (
                query.location is None
                or _holds(query.location, place_of(sample["collection_location"]))
            )
            and (
                query.search is None
                or _holds(query.search, sample["private_identifier"], sample["public_identifier"])
            )
        )

    def _follows(self, sample: int) -> bool:
        after = self._query.after or 0
        return sample < after if self._query.reverse else sample > after


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
    matches, found = find_keys(api.samples, asker, find_slugs(api, slug), keys, by, owner)
    matches = settle_keys(keys, matches, within=group)
    return [_describe(found[match.sample_id], match.by) for match in matches]


def find_keys(
    samples: Samples,
    asker: Org,
    slugs: Iterable[str],
    keys: Iterable[str],
    by: SampleKey | None,
    owner: Org | None,
) -> tuple[list[Match], dict[int, Sample]]:
    """Return all matches of the keys in these lists, ordered by kind, and the samples by ID.

    None for ``by`` or ``owner`` allows any kind of key, or samples of any group.
    """
    kinds = [by] if by else list(SampleKey)
    wanted = frozenset(keys)
    take = partial(_matching, wanted, kinds, owner)
    found: list[tuple[Match, Sample]] = []
    for slug in slugs:
        if by is SampleKey.ID and len(found) == len(wanted):  # an ID names one sample only
            break
        found += samples.read(asker.id, slug, take)
    matches = sorted((match for match, _ in found), key=lambda match: kinds.index(match.by))
    return matches, {match.sample_id: sample for match, sample in found}


def _matching(
    keys: Collection[str], kinds: Iterable[SampleKey], owner: Org | None, found: Iterable[Sample]
) -> list[tuple[Match, Sample]]:
    return [
        (Match(str(value), sample["id"], kind, sample["submitting_group"]["name"]), sample)
        for sample in found
        if owner is None or sample["submitting_group"]["id"] == owner.id
        for kind in kinds
        if (value := sample[kind.value]) is not None and str(value) in keys
    ]


def listed(sample: Sample) -> SampleRow:
    """Convert an API sample to a row of a list."""
    return _row_of(_values(sample))


def _row_of(values: list[Any]) -> SampleRow:
    values[_COLLECTED] = dt.date.fromisoformat(values[_COLLECTED])
    return SampleRow(*values)


def _values(sample: Sample) -> list[Any]:
    """Return the values of a `SampleRow` in order, with the date as text, as in JSON."""
    pathogen = sample["pathogen"]
    return [
        sample["id"],
        sample["private_identifier"],
        sample["public_identifier"],
        sample["submitting_group"]["name"],
        pathogen["slug"] if pathogen else "",
        sample["collection_date"],
        place_of(sample["collection_location"]),
        sample["private"],
        sample["uploaded_by"]["name"],
    ]


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
class Wanted:
    """The samples that a run needs from the list: by ID, or by identifier of either kind."""

    ids: frozenset[int]
    names: frozenset[str]

    def __or__(self, other: Wanted) -> Wanted:
        return Wanted(self.ids | other.ids, self.names | other.names)


@dataclass(frozen=True)
class Snapshot:
    """The group's wanted samples, by ID, as the API listed them at one moment.

    ``elsewhere`` has the wanted public identifiers that visible samples of other groups have.
    """

    samples: dict[int, ListedSample]
    elsewhere: frozenset[str]

    def holders(self) -> dict[str, ListedSample]:
        """Return the samples by public identifier, which is unique within the group."""
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

    def read(self, wanted: Wanted) -> Snapshot:
        """Fetch the list."""
        take = partial(self._take, wanted)
        parts = [self.samples.read(self.group_id, slug, take) for slug in self.slugs]
        return Snapshot(
            {held.id: held for mine, _ in parts for held in mine},
            frozenset().union(*(elsewhere for _, elsewhere in parts)),
        )

    def _take(self, wanted: Wanted, found: Iterable[Sample]) -> tuple[list[ListedSample], set[str]]:
        """Return the group's wanted samples, and the wanted names that other groups use."""
        mine, elsewhere = list[ListedSample](), set[str]()
        for sample in found:
            public, private = sample["public_identifier"] or "", sample["private_identifier"]
            if sample["submitting_group"]["id"] != self.group_id:
                if public in wanted.names:
                    elsewhere.add(public)
            elif sample["id"] in wanted.ids or public in wanted.names or private in wanted.names:
                mine.append(
                    ListedSample(
                        sample["id"],
                        private or "",
                        public,
                        sample["private"],
                        sample["collection_date"],
                        sample["sequencing_date"],
                    )
                )
        return mine, elsewhere

    def has(self, names: Iterable[str]) -> bool:
        """Return True if every one of these names matches a sample."""
        return not self.samples.missing(self.group_id, self.slug, list(names))
