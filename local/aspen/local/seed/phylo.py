"""Phylogenetic runs of the test groups, with their trees and the public samples to compare with.

A run needs the latest aligned dump of its pathogen's repository; identifiers are looked up in the
repository's metadata. Both contain the same few generated strains. Trees are in version 2 of
Auspice's dataset format: https://docs.nextstrain.org/projects/auspice/en/stable/releases/v2.html
"""

from __future__ import annotations

import csv
import json
import time
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from functools import cache
from importlib.resources import files
from itertools import groupby
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, selectinload

from aspen.database.engine import Database
from aspen.database.models import (
    AlignedPathogenGenome,
    AlignedRepositoryData,
    Pathogen,
    PhyloRun,
    PhyloTree,
    PublicRepository,
    PublicRepositoryMetadata,
    RepositoryAlignmentWorkflow,
    Sample,
    TreeType,
    UploadedPathogenGenome,
    User,
    WorkflowStatus,
)
from aspen.local.seed.samples import (
    DB_BUCKET,
    PATHOGEN_SLUG,
    PUBLIC_PREFIX,
    REFERENCE,
    Objects,
    ancestor,
)

SOURCES = (("SC2", "GISAID"), ("SC2", "GenBank"), ("MPX", "GenBank"))
"""The pathogen and repository of each dump."""
_ALIGNED = datetime(2023, 1, 8, 4, 0), datetime(2023, 1, 8, 6, 30)  # noqa: DTZ001 - columns are naive UTC

_REPOSITORY = "GISAID"
_CONTEXT_DIFFERENCES = 3  # the average of the generated samples
_KEY = "phylo_runs/{}/tree.json"

_ROOT_DAY = date(2019, 12, 26)
_COLOURINGS = (
    {"key": "pango_lineage", "title": "Lineage", "type": "categorical"},
    {"key": "country", "title": "Country", "type": "categorical"},
    {"key": "division", "title": "Division", "type": "categorical"},
)
_Row = Mapping[str, Any]


@dataclass(frozen=True)
class Strain:
    """A generated sample of a public repository."""

    strain: str
    isl: str
    date: datetime
    region: str
    country: str
    division: str | None
    location: str | None
    lineage: str


@dataclass(frozen=True)
class Leaf:
    """A sample at the tip of a branch.

    Attributes:
        name: The public identifier.
        day: The collection date.
        lineage: The lineage; None if unknown.
        country: The country of collection.
        division: The state or province there; None if unknown.
        differences: The number of sites that differ from the root.
    """

    name: str
    day: date
    lineage: str | None
    country: str
    division: str | None
    differences: int


@dataclass(frozen=True)
class RunsResult:
    """The objects added.

    Attributes:
        runs: The number of runs.
        trees: The number of runs with a tree.
        seconds: The time it took.
    """

    runs: int
    trees: int
    seconds: float


def seed_runs(database: Database, objects: Objects) -> RunsResult:
    """Add the test groups' runs and trees, and the repository dumps that runs start from.

    A tree contains the first samples of its group, up to the wanted number. If there are none, its
    run is left for the next time. Running it again adds what is missing, including files.
    """
    began = time.monotonic()
    text = (files("aspen.local.seed") / "runs.toml").read_text(encoding="utf-8")
    with database.begin() as session:
        add_upstream(session, objects)
        made = [run for row in tomllib.loads(text)["runs"] if (run := _add(session, row))]
        trees = sum(bool(run.outputs) for run in made)
        _write_files(session, objects)
    return RunsResult(len(made), trees, time.monotonic() - began)


def _add(session: Session, row: _Row) -> PhyloRun | None:
    """Add a run, if it is new and the samples that it needs exist; return it, or None."""
    there = sa.select(PhyloRun.id).where(
        PhyloRun.group_id == row["group"], PhyloRun.name == row["name"]
    )
    samples = _samples(session, row["group"], row.get("samples", 0))
    if session.scalar(there) is not None or (row.get("samples") and not samples):
        return None
    run = _run(session, row)
    session.add(run)
    for sample in samples:
        assert sample.uploaded_pathogen_genome  # noqa: S101 - required by the query in _samples
        run.inputs.append(sample.uploaded_pathogen_genome)
        if not sample.aligned_pathogen_genome:
            sample.aligned_pathogen_genome = _aligned(sample.uploaded_pathogen_genome)
    session.flush()  # the tree's key contains the run's ID
    if samples:
        run.outputs.append(_tree(run, samples))
    return run


def _samples(session: Session, group: int, count: int) -> list[Sample]:
    """Return the first samples of a group that have a genome."""
    statement = (
        sa.select(Sample)
        .join(Sample.uploaded_pathogen_genome)
        .where(Sample.submitting_group_id == group)
        .order_by(Sample.id)
        .limit(count)
        .options(
            selectinload(Sample.uploaded_pathogen_genome),
            selectinload(Sample.aligned_pathogen_genome),
        )
    )
    return list(session.scalars(statement))


def _run(session: Session, row: _Row) -> PhyloRun:
    pathogen = session.scalars(sa.select(Pathogen.id).where(Pathogen.slug == PATHOGEN_SLUG)).one()
    repository = session.scalars(
        sa.select(PublicRepository.id).where(PublicRepository.name == _REPOSITORY)
    ).one()
    dump = newest_dump(session, pathogen, repository)
    return PhyloRun(
        user_id=session.scalar(
            sa.select(User.id).where(User.auth0_user_id == f"auth0|{row['login']}")
        ),
        group_id=row["group"],
        name=row["name"],
        tree_type=TreeType(row["tree_type"]),
        workflow_status=WorkflowStatus(row["status"]),
        start_datetime=row["started"],
        end_datetime=row.get("ended"),
        template_args=row.get("arguments", {}),
        pathogen_id=pathogen,
        contextual_repository_id=repository,
        inputs=[dump] if dump else [],
    )


def _aligned(genome: UploadedPathogenGenome) -> AlignedPathogenGenome:
    """Return an aligned copy; generated genomes need no alignment, as they have no indels."""
    return AlignedPathogenGenome(
        group_id=genome.group_id,
        sequence=genome.sequence,
        num_unambiguous_sites=genome.num_unambiguous_sites,
        num_missing_alleles=genome.num_missing_alleles,
        num_mixed=genome.num_mixed,
        sequencing_date=genome.sequencing_date,
        reference_name=REFERENCE,
    )


def _tree(run: PhyloRun, samples: list[Sample]) -> PhyloTree:
    return PhyloTree(
        group_id=run.group_id,
        name=run.name,
        tree_type=run.tree_type,
        pathogen_id=run.pathogen_id,
        contextual_repository_id=run.contextual_repository_id,
        resolved_template_args=run.template_args,
        s3_bucket=DB_BUCKET,
        s3_key=_KEY.format(run.id),
        samples=samples,
    )


def _write_files(session: Session, objects: Objects) -> None:
    """Write the files of trees that have none yet."""
    trees = session.scalars(
        sa.select(PhyloTree)
        .join(PhyloTree.producing_workflow.of_type(PhyloRun))
        .where(
            PhyloTree.s3_bucket == DB_BUCKET,
            PhyloTree.s3_key.like(_KEY.format("%")),
            PhyloRun.end_datetime.is_not(None),
        )
        .options(
            selectinload(PhyloTree.samples).options(
                selectinload(Sample.mutations),
                selectinload(Sample.lineages),
                selectinload(Sample.collection_location),
            )
        )
    )
    for tree in trees:
        if not objects.has(tree.s3_bucket, tree.s3_key):
            objects.put(tree.s3_bucket, tree.s3_key, _document(tree))


def _document(tree: PhyloTree) -> bytes:
    run = tree.producing_workflow
    assert run and run.end_datetime  # noqa: S101, PT018 - required by the query
    leaves = [_leaf(sample) for sample in tree.samples]
    if tree.tree_type is not TreeType.NON_CONTEXTUALIZED:
        leaves += _context()
    return tree_document(tree.name or "", run.end_datetime.date(), leaves)


def _leaf(sample: Sample) -> Leaf:
    place = sample.collection_location
    differing = sample.mutations[0].substitutions if sample.mutations else ""
    return Leaf(
        name=sample.public_identifier,
        day=sample.collection_date,
        lineage=sample.lineages[0].lineage if sample.lineages else None,
        country=(place and place.country) or "",
        division=place.division if place else None,
        differences=len(differing.split(",")) if differing else 0,
    )


def _context() -> list[Leaf]:
    return [
        Leaf(
            f"{PUBLIC_PREFIX}/{strain.strain}",
            strain.date.date(),
            strain.lineage,
            strain.country,
            strain.division,
            _CONTEXT_DIFFERENCES,
        )
        for strain in strains()
    ]


@cache
def strains() -> tuple[Strain, ...]:
    """Return the seeded strains."""
    text = (files("aspen.local.seed") / "context.csv").read_text(encoding="utf-8")
    return tuple(
        Strain(
            row["strain"],
            row["isl"],
            datetime.fromisoformat(row["date"]),
            row["region"],
            row["country"],
            row["division"] or None,
            row["location"] or None,
            row["lineage"],
        )
        for row in csv.DictReader(text.splitlines())
    )


def add_upstream(session: Session, objects: Objects) -> int:
    """Add the missing dumps, their files, and their metadata; return the number of dumps added."""
    pathogens = dict(session.execute(sa.select(Pathogen.slug, Pathogen.id)).all())
    names = sa.select(PublicRepository.name, PublicRepository.id)
    repositories = dict(session.execute(names).all())
    _add_metadata(session, pathogens["SC2"], repositories["GISAID"])
    added = 0
    for slug, repository in SOURCES:
        keys = _keys(slug, repository)
        there = session.scalar(
            sa.select(AlignedRepositoryData).where(
                AlignedRepositoryData.s3_bucket == DB_BUCKET,
                AlignedRepositoryData.sequences_s3_key == keys[0],
            )
        )
        if there is None:
            session.add(_dump(pathogens[slug], repositories[repository], keys))
            added += 1
        for key, body in zip(keys, (_sequences(), _metadata()), strict=True):
            if not objects.has(DB_BUCKET, key):
                objects.put(DB_BUCKET, key, body)
    session.flush()
    return added


def newest_dump(session: Session, pathogen: int, repository: int) -> AlignedRepositoryData | None:
    """Return the latest dump, which a run of a pathogen starts from."""
    return session.scalar(
        sa.select(AlignedRepositoryData)
        .join(AlignedRepositoryData.producing_workflow)
        .where(
            AlignedRepositoryData.pathogen_id == pathogen,
            AlignedRepositoryData.public_repository_id == repository,
        )
        .order_by(RepositoryAlignmentWorkflow.end_datetime.desc())
        .limit(1)
    )


def _keys(slug: str, repository: str) -> tuple[str, str]:
    folder = f"aligned_repository_data/{slug}/{repository.lower()}"
    return f"{folder}/sequences.fasta", f"{folder}/metadata.tsv"


def _dump(pathogen: int, repository: int, keys: tuple[str, str]) -> AlignedRepositoryData:
    source = {"pathogen_id": pathogen, "public_repository_id": repository}
    workflow = RepositoryAlignmentWorkflow(
        start_datetime=_ALIGNED[0],
        end_datetime=_ALIGNED[1],
        workflow_status=WorkflowStatus.COMPLETED,
        **source,
    )
    return AlignedRepositoryData(
        producing_workflow=workflow,
        s3_bucket=DB_BUCKET,
        sequences_s3_key=keys[0],
        metadata_s3_key=keys[1],
        **source,
    )


def _add_metadata(session: Session, pathogen: int, repository: int) -> None:
    rows = [
        {**vars(strain), "pathogen_id": pathogen, "public_repository_id": repository}
        for strain in strains()
    ]
    session.execute(insert(PublicRepositoryMetadata).values(rows).on_conflict_do_nothing())


def _sequences() -> bytes:
    """Return the sequences, each of which differs from the ancestor at a different site."""
    lines = []
    for number, strain in enumerate(strains()):
        sites = bytearray(ancestor())
        sites[number] = ord("A" if sites[number] != ord("A") else "C")
        lines.append(f">{strain.strain}\n{sites.decode()}\n")
    return "".join(lines).encode()


def _metadata() -> bytes:
    columns = tuple(Strain.__dataclass_fields__)
    lines = ["\t".join(columns)]
    for strain in strains():
        cells = {**vars(strain), "date": f"{strain.date:%Y-%m-%d}"}
        lines.append("\t".join(cells[column] or "" for column in columns))
    return ("\n".join(lines) + "\n").encode()


def tree_document(title: str, updated: date, leaves: Iterable[Leaf]) -> bytes:
    """Return the tree as JSON; samples of the same lineage share a branch."""
    ordered = sorted(leaves, key=lambda leaf: (leaf.lineage or "", leaf.day, leaf.name))
    clades = [
        _clade(number, list(members))
        for number, (_, members) in enumerate(groupby(ordered, lambda leaf: leaf.lineage), 1)
    ]
    document = {
        "version": "v2",
        "meta": {
            "title": title,
            "updated": updated.isoformat(),
            "panels": ["tree"],
            "colorings": list(_COLOURINGS),
            "filters": ["country", "pango_lineage"],
            "display_defaults": {"color_by": "pango_lineage", "distance_measure": "num_date"},
        },
        "tree": {
            "name": "NODE_0000000",
            "node_attrs": _attributes(0, _ROOT_DAY),
            "children": clades,
        },
    }
    return json.dumps(document, indent=1).encode()


def _clade(number: int, members: list[Leaf]) -> dict[str, Any]:
    differences = min(leaf.differences for leaf in members)
    first = min(leaf.day for leaf in members)
    return {
        "name": f"NODE_{number:07d}",
        "node_attrs": _attributes(differences, first, pango_lineage=members[0].lineage),
        "children": [
            {
                "name": leaf.name,
                "node_attrs": _attributes(
                    leaf.differences,
                    leaf.day,
                    pango_lineage=leaf.lineage,
                    country=leaf.country,
                    division=leaf.division,
                ),
            }
            for leaf in members
        ],
    }


def _attributes(differences: int, day: date, **traits: str | None) -> dict[str, Any]:
    year_begins = date(day.year, 1, 1)
    share = (day - year_begins).days / (date(day.year + 1, 1, 1) - year_begins).days
    valued = {name: {"value": value} for name, value in traits.items() if value}
    return {"div": differences, "num_date": {"value": round(day.year + share, 4)}, **valued}
