"""Phylogenetic runs of the test groups, with their trees and the public samples to compare with.

A run needs the latest aligned dump of its pathogen's repository; identifiers are looked up in the
repository's metadata. Both contain the same few generated strains. Trees are in version 2 of
Auspice's dataset format: https://docs.nextstrain.org/projects/auspice/en/stable/releases/v2.html
"""

from __future__ import annotations

import json
import time
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from functools import cache
from itertools import groupby
from typing import Any, NamedTuple

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
from aspen.local.aws.content import DB_BUCKET, ObjectFolder
from aspen.local.seed.genomes import Descendant, descendant
from aspen.local.seed.samples import (
    PATHOGEN_SLUG,
    PUBLIC_PREFIX,
    REFERENCE,
    Seeded,
    branch_of,
    drawn_differences,
    resource,
    resource_rows,
)

_SOURCES = (("SC2", "GISAID"), ("SC2", "GenBank"), ("MPX", "GenBank"))
"""The pathogen and repository of each dump."""
_ALIGNED = datetime(2023, 1, 8, 4, 0), datetime(2023, 1, 8, 6, 30)  # noqa: DTZ001 - columns are naive UTC

_REPOSITORY = "GISAID"
_CONTEXT_DIFFERENCES = 3  # the average of those that were drawn for samples
_KEY = "phylo_runs/{}/tree.json"

_ROOT_DAY = date(2019, 12, 26)
_COLOURINGS = (
    {"key": "pango_lineage", "title": "Lineage", "type": "categorical"},
    {"key": "country", "title": "Country", "type": "categorical"},
    {"key": "division", "title": "Division", "type": "categorical"},
)
_Row = Mapping[str, Any]


class Strain(NamedTuple):
    """A generated sample of a public repository."""

    strain: str
    isl: str
    date: str
    region: str
    country: str
    division: str
    location: str
    lineage: str


@dataclass(frozen=True)
class _Leaf:
    """A sample at the tip of a branch, with the number of sites that differ from the root."""

    name: str
    day: date
    lineage: str | None
    country: str
    division: str | None
    differences: int


def seed_runs(database: Database, objects: ObjectFolder) -> Seeded:
    """Add the test groups' runs and trees, and the repository dumps that runs start from.

    A tree contains the first samples of its group, up to the wanted number. If there are none, its
    run is left for the next time. Running it again adds what is missing, including files.
    """
    began = time.monotonic()
    with database.begin() as session:
        _add_dumps(session, objects)
        rows = tomllib.loads(resource("runs.toml"))["runs"]
        made = [run for row in rows if (run := _add(session, row))]
        trees = sum(bool(run.outputs) for run in made)
        _write_files(session, objects)
    return Seeded(runs=len(made), trees=trees, seconds=time.monotonic() - began)


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
    source = _source(session, PATHOGEN_SLUG, _REPOSITORY)
    dump = session.scalar(
        sa.select(AlignedRepositoryData)
        .filter_by(**source)
        .join(AlignedRepositoryData.producing_workflow)
        .order_by(RepositoryAlignmentWorkflow.end_datetime.desc())
        .limit(1)
    )
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
        pathogen_id=source["pathogen_id"],
        contextual_repository_id=source["public_repository_id"],
        inputs=[dump] if dump else [],
    )


def _source(session: Session, slug: str, repository: str) -> dict[str, int]:
    """Return the IDs of a pathogen and a repository, by column."""
    pathogens = sa.select(Pathogen.id).where(Pathogen.slug == slug)
    repositories = sa.select(PublicRepository.id).where(PublicRepository.name == repository)
    return {
        "pathogen_id": session.scalars(pathogens).one(),
        "public_repository_id": session.scalars(repositories).one(),
    }


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


def _write_files(session: Session, objects: ObjectFolder) -> None:
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
    return _tree_document(tree.name or "", run.end_datetime.date(), leaves)


def _leaf(sample: Sample) -> _Leaf:
    place = sample.collection_location
    return _Leaf(
        name=sample.public_identifier,
        day=sample.collection_date,
        lineage=sample.lineages[0].lineage if sample.lineages else None,
        country=(place and place.country) or "",
        division=place.division if place else None,
        # Seeded trees are examples, the same for any genomes; a job builds true ones.
        differences=drawn_differences(sample.private_identifier) if sample.mutations else 0,
    )


def _context() -> list[_Leaf]:
    return [
        _Leaf(
            f"{PUBLIC_PREFIX}/{one.strain}",
            date.fromisoformat(one.date),
            one.lineage,
            one.country,
            one.division,
            _CONTEXT_DIFFERENCES,
        )
        for one in strains()
    ]


@cache
def strains() -> tuple[Strain, ...]:
    """Return the seeded strains."""
    return tuple(Strain(**row) for row in resource_rows("context.csv"))


def _add_dumps(session: Session, objects: ObjectFolder) -> None:
    """Add the missing dumps, their files, and their metadata."""
    _add_metadata(session)
    for slug, repository in _SOURCES:
        folder = f"aligned_repository_data/{slug}/{repository.lower()}"
        sequences, metadata = f"{folder}/sequences.fasta", f"{folder}/metadata.tsv"
        there = session.scalar(
            sa.select(AlignedRepositoryData).where(
                AlignedRepositoryData.s3_bucket == DB_BUCKET,
                AlignedRepositoryData.sequences_s3_key == sequences,
            )
        )
        if there is None:
            session.add(_dump(_source(session, slug, repository), sequences, metadata))
        for key, body in ((sequences, _sequences()), (metadata, _metadata())):
            if not objects.has(DB_BUCKET, key):
                objects.put(DB_BUCKET, key, body)
    session.flush()


def _dump(source: dict[str, int], sequences: str, metadata: str) -> AlignedRepositoryData:
    workflow = RepositoryAlignmentWorkflow(
        start_datetime=_ALIGNED[0],
        end_datetime=_ALIGNED[1],
        workflow_status=WorkflowStatus.COMPLETED,
        **source,
    )
    return AlignedRepositoryData(
        producing_workflow=workflow,
        s3_bucket=DB_BUCKET,
        sequences_s3_key=sequences,
        metadata_s3_key=metadata,
        **source,
    )


def _add_metadata(session: Session) -> None:
    source = _source(session, PATHOGEN_SLUG, _REPOSITORY)
    rows = [
        {
            **{column: text or None for column, text in strain._asdict().items()},
            "date": datetime.fromisoformat(strain.date),
            **source,
        }
        for strain in strains()
    ]
    session.execute(insert(PublicRepositoryMetadata).values(rows).on_conflict_do_nothing())


def _sequences() -> bytes:
    """Return the aligned sequences; generated genomes have no insertions and no deletions."""
    return "".join(f">{one.strain}\n{_genome(one).sequence}\n" for one in strains()).encode()


def _genome(one: Strain) -> Descendant:
    return descendant(one.strain, date.fromisoformat(one.date), branch_of(one.lineage))


def _metadata() -> bytes:
    return "".join("\t".join(cells) + "\n" for cells in (Strain._fields, *strains())).encode()


def _tree_document(title: str, updated: date, leaves: Iterable[_Leaf]) -> bytes:
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


def _clade(number: int, members: list[_Leaf]) -> dict[str, Any]:
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
