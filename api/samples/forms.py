"""The forms of public repositories, filled in as far as is known here.

GISAID's is its sheet for batches (EpiCoV; other pathogens have the same columns under another
prefix): https://gisaid.org. GenBank's is its table of source modifiers:
https://www.ncbi.nlm.nih.gov/genbank/mods_fastadefline/.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from api.authz import Access, Action
from api.errors import ApiError
from api.samples.finding import named
from db.models import Group, Location, Pathogen, PathogenRepoConfig, PublicRepository, Sample

_UNKNOWN = "unknown"
_PREFIXES = {"SC2": "covv", "MPX": "pox"}
_TYPES = {"SC2": "betacoronavirus"}


@dataclass(frozen=True)
class Form:
    """A form that is filled in.

    Attributes:
        filename: What to save it as.
        media_type: What it is.
        text: Its content.
    """

    filename: str
    media_type: str
    text: str


Row = Mapping[str, Any]
Cells = Mapping[str, str]


async def fill_in(
    db: AsyncSession,
    access: Access,
    pathogen: Pathogen,
    names: Sequence[str],
    repository: str,
) -> Form:
    """The form of a repository for those of the samples that the user may see.

    Raises:
        ApiError: 400, when there is no such repository, or it does not have the pathogen.
    """
    await _check(db, pathogen, repository)
    rows = await _rows(db, access, pathogen, names)
    make = _KINDS[repository]
    return make(rows, access, pathogen)


async def _check(db: AsyncSession, pathogen: Pathogen, repository: str) -> None:
    query = (
        sa.select(PublicRepository.name)
        .join(PathogenRepoConfig, PathogenRepoConfig.public_repository_id == PublicRepository.id)
        .where(PathogenRepoConfig.pathogen_id == pathogen.id)
    )
    known = sorted(name for name in await db.scalars(query) if name in _KINDS)
    if repository not in known:
        raise ApiError(
            400, "public_repository_name is unknown", repositories=known, given=repository
        )


async def _rows(
    db: AsyncSession, access: Access, pathogen: Pathogen, names: Sequence[str]
) -> list[Row]:
    private = sa.case((access.samples(Action.READ_PRIVATE), Sample.private_identifier), else_="")
    query = (
        sa.select(
            Sample.public_identifier.label("public"),
            private.label("private"),
            Sample.collection_date.label("collected"),
            Sample.sample_collected_by.label("collector"),
            Sample.sample_collector_contact_address.label("collector_address"),
            Sample.authors,
            Sample.organism,
            sa.func.coalesce(Sample.host, "").label("host"),
            sa.func.coalesce(Sample.specimen_processing, "").label("specimen"),
            Location.region,
            Location.country,
            Location.division,
            Location.location,
            sa.func.coalesce(Group.submitting_lab, Group.name).label("lab"),
            Group.address,
        )
        .join(Group, Group.id == Sample.submitting_group_id)
        .outerjoin(Location, Location.id == Sample.location_id)
        .where(named(access, pathogen, names))
        .order_by(Sample.id)
    )
    return [dict(row) for row in (await db.execute(query)).mappings()]


def _gisaid(rows: Iterable[Row], access: Access, pathogen: Pathogen) -> Form:
    prefix = _PREFIXES.get(pathogen.slug, _PREFIXES["SC2"])
    own = ("submitter", "fn")
    columns = [name if name in own else f"{prefix}_{name}" for name in _GISAID_COLUMNS]
    told = (_for_gisaid(row, access, pathogen) for row in rows)
    cells = [[filled.get(name, "") for name in _GISAID_COLUMNS] for filled in told]
    return Form("gisaid_metadata.csv", "text/csv", _table(columns, cells, ","))


def _for_gisaid(row: Row, access: Access, pathogen: Pathogen) -> Cells:
    return {
        "submitter": access.user.gisaid_submitter_id or "",
        "virus_name": row["public"],
        "type": _TYPES.get(pathogen.slug, ""),
        "passage": "Original",
        "collection_date": row["collected"].isoformat(),
        "location": " / ".join(_place(row)),
        "host": row["host"] or "Human",
        "gender": _UNKNOWN,
        "patient_age": _UNKNOWN,
        "patient_status": _UNKNOWN,
        "specimen": row["specimen"],
        "orig_lab": row["collector"],
        "orig_lab_addr": row["collector_address"] or row["address"] or "",
        "provider_sample_id": row["private"],
        "subm_lab": row["lab"],
        "subm_lab_addr": row["address"] or "",
        "authors": _authors(row),
    }


def _genbank(rows: Iterable[Row], _access: Access, pathogen: Pathogen) -> Form:
    cells = []
    for row in rows:
        place = _place(row)[1:] or _place(row)
        where = ": ".join([*place[:1], ", ".join(place[1:])]) if len(place) > 1 else "".join(place)
        cells.append(
            [
                row["public"],
                row["organism"] or pathogen.name,
                row["public"],
                where,
                row["host"] or "Homo sapiens",
                row["collected"].isoformat(),
                row["specimen"],
                row["collector"],
            ]
        )
    return Form("genbank_metadata.tsv", "text/tsv", _table(_GENBANK_COLUMNS, cells, "\t"))


_KINDS: Mapping[str, Callable[[Iterable[Row], Access, Pathogen], Form]] = {
    "GISAID": _gisaid,
    "GenBank": _genbank,
}
_GISAID_COLUMNS = (
    "submitter",
    "fn",
    "virus_name",
    "type",
    "passage",
    "collection_date",
    "location",
    "add_location",
    "host",
    "add_host_info",
    "sampling_strategy",
    "gender",
    "patient_age",
    "patient_status",
    "specimen",
    "outbreak",
    "last_vaccinated",
    "treatment",
    "seq_technology",
    "assembly_method",
    "coverage",
    "orig_lab",
    "orig_lab_addr",
    "provider_sample_id",
    "subm_lab",
    "subm_lab_addr",
    "subm_sample_id",
    "authors",
)
_GENBANK_COLUMNS = (
    "Sequence_ID",
    "organism",
    "isolate",
    "geo_loc_name",
    "host",
    "collection-date",
    "isolation-source",
    "collected-by",
)


def _place(row: Row) -> list[str]:
    levels = ("region", "country", "division", "location")
    return [row[level] for level in levels if row[level]]


def _authors(row: Row) -> str:
    authors = row["authors"]
    return ", ".join(authors) if isinstance(authors, list) else str(authors)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], delimiter: str) -> str:
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return out.getvalue()
