"""A group's samples, a repository's dump, and runs, made as tests need them."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any, Self

import pytest
import sqlalchemy as sa

from aspen.database.engine import Database
from aspen.database.models import (
    AlignedRepositoryData,
    Entity,
    Location,
    Pathogen,
    PhyloRun,
    PublicRepository,
    RepositoryAlignmentWorkflow,
    Sample,
    TreeType,
    UploadedPathogenGenome,
    User,
    WorkflowStatus,
)
from aspen.local.aws.content import DB_BUCKET, REGION
from aspen.workflows.data import GENOMES, Genome, Reference
from aspen.workflows.steps import Workspace
from aspen.workflows.surroundings import Surroundings
from tests.api.conftest import Cloud

GROUP = 2
"""A group with a location in Alameda County, California, and no samples."""
HOME = ("North America", "USA", "California", "Alameda County")
STARTED = datetime(2023, 1, 20, 9, 30)  # noqa: DTZ001 - the column is naive
BASES = "ACGT"
SHORT = 1_200
METADATA = ("strain", "date", "region", "country", "division", "location", "pango_lineage")

Row = Mapping[str, str]


@dataclass(frozen=True)
class ShortReference(Reference):
    """A reference genome of which many copies can be made in a short time."""

    @property
    def sequence(self) -> str:
        return "".join(random.Random("reference").choices(BASES, k=SHORT))


def use_short_genomes(monkeypatch: pytest.MonkeyPatch) -> None:
    reference = ShortReference("MN908947.3", "Wuhan/Hu-1/2019", "2019-12-26")
    monkeypatch.setitem(GENOMES, "SC2", Genome(minimum=100, reference=reference))


def mutated(name: str, sites: int = 4, base: str | None = None) -> str:
    """Return a genome that differs from another at some sites, always the same for a name."""
    chance = random.Random(name)
    letters = list(base or reference())
    for site in chance.sample(range(10, len(letters) - 10), sites):
        letters[site] = chance.choice([one for one in BASES if one != letters[site]])
    return "".join(letters)


def reference() -> str:
    found = GENOMES["SC2"].reference
    assert found
    return found.sequence


def fasta(sequences: Iterable[tuple[str, str]]) -> bytes:
    return "".join(f">{name}\n{letters}\n" for name, letters in sequences).encode()


def genomes(rows: Iterable[Row], given: Mapping[str, str] | None = None) -> bytes:
    """Return the sequences of these rows, of which some may be given by their strain."""
    known = given or {}
    names = [row["strain"] for row in rows]
    return fasta((name, known.get(name) or mutated(name)) for name in names)


def table(rows: Iterable[Row], columns: Sequence[str] = METADATA) -> bytes:
    lines = ["\t".join(columns)]
    lines += ["\t".join(row.get(column, "") for column in columns) for row in rows]
    return ("\n".join(lines) + "\n").encode()


def read_table(path: Path) -> list[dict[str, str]]:
    header, *lines = path.read_text(encoding="utf-8").splitlines()
    return [dict(zip(header.split("\t"), line.split("\t"), strict=True)) for line in lines]


def read_fasta(path: Path) -> dict[str, str]:
    records = path.read_text(encoding="utf-8").split(">")[1:]
    return {one.partition("\n")[0]: one.partition("\n")[2].replace("\n", "") for one in records}


def context_row(number: int, place: Sequence[str], day: date, lineage: str = "BA.2") -> Row:
    names = dict(zip(("region", "country", "division", "location"), place, strict=False))
    return {
        "strain": f"{place[1]}/CTX-{number}/{day.year}",
        "date": day.isoformat(),
        "pango_lineage": lineage,
        **names,
    }


@dataclass
class Lab:
    """A deployment's database and bucket, and the folder of one job."""

    database: Database
    cloud: Cloud
    folder: Path
    pathogen: str = "SC2"
    samples: dict[str, int] = field(default_factory=dict)
    """The ID of each added sample by its public identifier."""
    dumps: int = 0

    @property
    def surroundings(self) -> Surroundings:
        return Surroundings(
            database=self.database.url.render_as_string(hide_password=False),
            bucket=DB_BUCKET,
            region=REGION,
            endpoint=self.cloud.address,
        )

    def environment(self) -> dict[str, str]:
        return {
            **self.surroundings.to_environment(),
            "AWS_ACCESS_KEY_ID": self.cloud.credentials.key,
            "AWS_SECRET_ACCESS_KEY": self.cloud.credentials.secret,
        }

    def add_samples(
        self,
        names: Iterable[str],
        *,
        group: int = GROUP,
        place: Sequence[str] | None = HOME,
        day: date = date(2023, 1, 10),
        sequences: Mapping[str, str | None] | None = None,
    ) -> list[int]:
        """Add samples with a genome each; None in ``sequences`` leaves the genome out."""
        given, made = sequences or {}, []
        with self.database.begin() as session:
            location = None if place is None else self._location(session, place)
            for name in names:
                sample = Sample(
                    submitting_group_id=group,
                    private_identifier=f"private {name}",
                    public_identifier=name,
                    sample_collected_by="Laboratory",
                    authors=["Abe, A.", "Birch, B."],
                    collection_date=day,
                    organism="virus",
                    uploaded_by_id=session.scalar(sa.select(sa.func.min(User.id))),
                    location_id=location,
                    pathogen_id=self._id(session, Pathogen.slug, self.pathogen),
                )
                sequence = given.get(name, mutated(name) if name not in given else None)
                if sequence is not None:
                    sample.uploaded_pathogen_genome = UploadedPathogenGenome(
                        group_id=group,
                        sequence=sequence,
                        num_unambiguous_sites=0,
                        num_missing_alleles=0,
                        num_mixed=0,
                    )
                session.add(sample)
                session.flush()
                self.samples[name] = sample.id
                made.append(sample.id)
        return made

    @staticmethod
    def _id(session: Any, column: Any, value: str) -> int:
        return int(session.scalars(sa.select(column.class_.id).where(column == value)).one())

    @staticmethod
    def _location(session: Any, place: Sequence[str]) -> int:
        names = [*place, None, None, None, None][:4]
        columns = (Location.region, Location.country, Location.division, Location.location)
        same = [
            column.is_not_distinct_from(name) for column, name in zip(columns, names, strict=True)
        ]
        found = session.scalar(sa.select(sa.func.min(Location.id)).where(*same))
        if found is None:
            keys = ("region", "country", "division", "location")
            made = Location(**dict(zip(keys, names, strict=True)))
            session.add(made)
            session.flush()
            found = made.id
        return int(found)

    def location(self, *place: str) -> int:
        """Return the ID of a location, which is added if it is new."""
        with self.database.begin() as session:
            return self._location(session, place)

    def put(self, name: str, body: bytes) -> str:
        """Store an object under a key of this lab, and return the key."""
        key = f"dumps/{self.folder.name}/{name}"
        self.replace(key, body)
        return key

    def replace(self, key: str, body: bytes) -> None:
        self.cloud.client("s3").put_object(Bucket=DB_BUCKET, Key=key, Body=body)

    def add_dump(self, metadata: str, sequences: str) -> int:
        """Register objects as the newest data of the repository; return the entity's ID."""
        with self.database.begin() as session:
            source = {
                "pathogen_id": self._id(session, Pathogen.slug, self.pathogen),
                "public_repository_id": self._id(session, PublicRepository.name, "GenBank"),
            }
            made = AlignedRepositoryData(
                s3_bucket=DB_BUCKET,
                metadata_s3_key=metadata,
                sequences_s3_key=sequences,
                producing_workflow=RepositoryAlignmentWorkflow(
                    start_datetime=STARTED,
                    end_datetime=STARTED,
                    workflow_status=WorkflowStatus.COMPLETED,
                    **source,
                ),
                **source,
            )
            session.add(made)
            session.flush()
            return made.entity_id

    def context(self, rows: Sequence[Row], sequences: Mapping[str, str] | None = None) -> int:
        """Store a dump with these rows, uncompressed, and register it."""
        self.dumps += 1
        return self.add_dump(
            self.put(f"{self.dumps}/metadata.tsv", table(rows)),
            self.put(f"{self.dumps}/sequences.fasta", genomes(rows, sequences)),
        )

    def start(
        self,
        tree_type: str,
        chosen: Iterable[int] = (),
        *,
        dump: int | None = None,
        group: int = GROUP,
        arguments: Mapping[str, Any] | None = None,
        public: Sequence[str] = (),
    ) -> int:
        """Add a run as the service does, and the folder of its job; return its ID."""
        with self.database.begin() as session:
            genome = sa.select(UploadedPathogenGenome).where(
                UploadedPathogenGenome.sample_id.in_(list(chosen))
            )
            inputs: list[Entity] = list(session.scalars(genome))
            if dump is not None:
                inputs.append(session.get_one(AlignedRepositoryData, dump))
            run = PhyloRun(
                group_id=group,
                pathogen_id=self._id(session, Pathogen.slug, self.pathogen),
                contextual_repository_id=self._id(session, PublicRepository.name, "GenBank"),
                name="Cluster",
                tree_type=TreeType(tree_type),
                template_args=dict(arguments or {}),
                gisaid_ids=list(public),
                workflow_status=WorkflowStatus.STARTED,
                start_datetime=STARTED,
                inputs=inputs,
            )
            session.add(run)
            session.flush()
            run_id = run.id
        self.folder.mkdir(exist_ok=True)
        (self.folder / "job.json").write_text(json.dumps({"run_id": run_id}))
        return run_id

    def workspace(self, step: str) -> Workspace:
        made = Workspace(self.folder, step, self.surroundings)
        made.out.mkdir(exist_ok=True)
        return made

    def run(self, step: str) -> Workspace:
        """Run a step in this process; return its workspace."""
        made = self.workspace(step)
        import_module(f"aspen.workflows.steps.{step.replace('-', '_')}").run(made)
        return made

    def export(self) -> dict[str, Any]:
        """Run tree-export; return what later steps read about the run."""
        made = self.run("tree-export")
        found: dict[str, Any] = json.loads((made.out / "run.json").read_text())
        return found

    def align(self, *leave_out: str, **reasons: str) -> Self:
        """Write what tree-align would; the genomes of these tests have no insertions."""
        exported = read_fasta(self.folder / "tree-export" / "sequences.fasta")
        folder = self.workspace("tree-align").out
        kept = {name: letters for name, letters in exported.items() if name not in leave_out}
        (folder / "aligned.fasta").write_bytes(fasta(kept.items()))
        lines = [(name, reasons.get("reason", "aligned")) for name in exported]
        (folder / "report.tsv").write_bytes(
            table([{"strain": name, "result": text} for name, text in lines], ("strain", "result"))
        )
        return self

    def subsample(self) -> dict[str, Any]:
        """Run tree-subsample; return its numbers."""
        made = self.run("tree-subsample")
        found: dict[str, Any] = json.loads((made.out / "counts.json").read_text())
        return found

    def tips(self) -> list[dict[str, str]]:
        """Return the metadata of the tree's samples, which match the sequences."""
        folder = self.folder / "tree-subsample"
        rows = read_table(folder / "metadata.tsv")
        sequences = read_fasta(folder / "aligned.fasta")
        assert [row["strain"] for row in rows] == list(sequences)
        assert {len(letters) for letters in sequences.values()} == {len(reference())}
        return rows

    def assemble(self, names: Iterable[str], **more: Any) -> Path:
        """Write a tree with these tips, as tree-assemble would."""
        tips = [{"name": name, "node_attrs": {"div": 0}} for name in names]
        tree = {"name": "NODE_0", "node_attrs": {"div": 0}, "children": tips}
        path = self.workspace("tree-assemble").out / "tree.json"
        path.write_text(json.dumps({"version": "v2", "meta": {}, "tree": tree, **more}))
        return path

    def save(self) -> None:
        """Run tree-save."""
        self.run("tree-save")

    def rows(self, query: str, **values: Any) -> list[tuple[Any, ...]]:
        with self.database.reading() as session:
            return [tuple(row) for row in session.execute(sa.text(query), values)]

    def read_object(self, key: str) -> bytes:
        answer = self.cloud.client("s3").get_object(Bucket=DB_BUCKET, Key=key)
        body: bytes = answer["Body"].read()
        return body


def days(first: date, count: int) -> list[date]:
    return [first + timedelta(days=number) for number in range(count)]
