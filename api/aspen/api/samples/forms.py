"""Submission forms of public repositories, filled in as far as possible.

GISAID's is its batch upload sheet (EpiCoV; other pathogens have the same columns with another
prefix): https://gisaid.org. GenBank's is its table of source modifiers:
https://www.ncbi.nlm.nih.gov/genbank/mods_fastadefline/.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from fastapi import Response
from sqlalchemy.ext.asyncio import AsyncSession

from aspen.api.authz import Access
from aspen.api.errors import ApiError
from aspen.api.samples.naming import GENBANK, GISAID, dated, fasta_filename, named, public_names
from aspen.api.streaming import attachment, delimited
from aspen.database.models import (
    Group,
    Location,
    Pathogen,
    PathogenRepoConfig,
    PublicRepository,
    Sample,
)

_UNKNOWN = "unknown"
_PREFIXES = {"SC2": "covv", "MPX": "pox"}
_TYPES = {"SC2": "betacoronavirus"}
_HUMAN = "Homo sapiens"
_HUMANS = frozenset({"", "human", "homo sapiens"})
_SPECIMENS = {"SC2": "Nasopharyngeal/oropharyngeal swab"}

Row = Mapping[str, Any]
Cells = Mapping[str, str]
Table = list[Sequence[str]]


async def fill_in(
    db: AsyncSession,
    access: Access,
    pathogen: Pathogen,
    names: Sequence[str],
    repository: str,
) -> Response:
    """Return a repository's form for the samples that the user may see.

    Raises:
        ApiError: 400 if the repository is unknown or does not have the pathogen.
    """
    await _check(db, pathogen, repository)
    public = await public_names(db, pathogen, repository)
    rows = await _rows(db, access, pathogen, names, public)
    make, ending, delimiter = _KINDS[repository]
    form = delimited(make(rows, access, pathogen), delimiter)
    headers = attachment(f"{dated(repository)}_metadata.{ending}", f"text/{ending}")
    return Response(form, headers=headers)


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
    db: AsyncSession,
    access: Access,
    pathogen: Pathogen,
    names: Sequence[str],
    public: sa.ColumnElement[str],
) -> list[Row]:
    query = (
        sa.select(
            public.label("public"),
            Sample.collection_date.label("collected"),
            sa.func.coalesce(Sample.host, "").label("host"),
            Location.region,
            Location.country,
            Location.division,
            Location.location,
            sa.func.coalesce(Group.submitting_lab, Group.name).label("lab"),
            Group.address,
        )
        .join(Group, Group.id == Sample.submitting_group_id)
        .outerjoin(Location, Location.id == Sample.location_id)
        .where(named(access, pathogen))
        .order_by(Sample.id)
    )
    return [dict(row) for row in (await db.execute(query, {"names": names})).mappings()]


def _gisaid(rows: Iterable[Row], access: Access, pathogen: Pathogen) -> Table:
    prefix = _PREFIXES.get(pathogen.slug, _PREFIXES["SC2"])
    own = ("submitter", "fn")
    columns = [name if name in own else f"{prefix}_{name}" for name in _GISAID_COLUMNS]
    filled = (_for_gisaid(row, access, pathogen) for row in rows)
    cells = [[known.get(name, "") for name in _GISAID_COLUMNS] for known in filled]
    return [columns, [*_GISAID_COLUMNS.values()], *cells]


def _for_gisaid(row: Row, access: Access, pathogen: Pathogen) -> Cells:
    """Return the values for a sample, without anything that only its group may see."""
    return {
        "submitter": access.user.gisaid_submitter_id or "",
        "fn": fasta_filename(GISAID),
        "virus_name": row["public"],
        "type": _TYPES.get(pathogen.slug, ""),
        "passage": "Original",
        "collection_date": row["collected"].isoformat(),
        "location": " / ".join(_place(row)),
        "host": "Human" if _is_human(row) else row["host"],
        "gender": _UNKNOWN,
        "patient_age": _UNKNOWN,
        "patient_status": _UNKNOWN,
        "specimen": _SPECIMENS.get(pathogen.slug, ""),
        "subm_lab": row["lab"],
        "subm_lab_addr": row["address"] or "",
    }


def _genbank(rows: Iterable[Row], _access: Access, _pathogen: Pathogen) -> Table:
    cells = []
    for row in rows:
        known = {
            "Sequence_ID": row["public"],
            "collection-date": row["collected"].isoformat(),
            "country": _country(row),
            "host": _HUMAN if _is_human(row) else row["host"],
            "isolate": row["public"],
        }
        cells.append([known.get(name, "") for name in _GENBANK_COLUMNS])
    return [_GENBANK_COLUMNS, *cells]


_KINDS: Mapping[str, tuple[Callable[[Iterable[Row], Access, Pathogen], Table], str, str]] = {
    GISAID: (_gisaid, "csv", ","),
    GENBANK: (_genbank, "tsv", "\t"),
}
_GISAID_COLUMNS = {
    "submitter": "Submitter",
    "fn": "FASTA filename",
    "virus_name": "Virus name",
    "type": "Type",
    "passage": "Passage details/history",
    "collection_date": "Collection date",
    "location": "Location",
    "add_location": "Additional location",
    "host": "Host",
    "add_host_info": "Additional host info",
    "sampling_strategy": "Sampling Strategy",
    "gender": "Gender",
    "patient_age": "Patient Age",
    "patient_status": "Patient Status",
    "specimen": "Specimen source",
    "outbreak": "Outbreak",
    "last_vaccinated": "Last vaccinated",
    "treatment": "Treatment",
    "seq_technology": "Sequencing technology",
    "assembly_method": "Assembly method",
    "coverage": "Coverage",
    "orig_lab": "Originating lab",
    "orig_lab_addr": "Address",
    "provider_sample_id": "Sample ID given by originating laboratory",
    "subm_lab": "Submitting lab",
    "subm_lab_addr": "Address",
    "subm_sample_id": "Sample ID given by the submitting laboratory",
    "authors": "Authors",
}
"""The columns without their prefix, with the labels of the second row."""
_GENBANK_COLUMNS = (
    "Sequence_ID",
    "collection-date",
    "country",
    "host",
    "isolate",
    "isolation-source",
    "BioProject",
    "BioSample",
)


def _is_human(row: Row) -> bool:
    return row["host"].strip().lower() in _HUMANS


def _place(row: Row) -> list[str]:
    levels = ("region", "country", "division", "location")
    return [row[level] for level in levels if row[level]]


def _country(row: Row) -> str:
    """Return the place in GenBank's format: ``USA: California, Ventura County``."""
    place = _place(row)[1:] or _place(row)
    return ": ".join(part for part in (", ".join(place[:1]), ", ".join(place[1:])) if part)
