"""Export of a run: its samples, what they are compared with, and how the tree is to be built.

Genomes are streamed from a server-side cursor, so memory does not grow with their number.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from aspen.database.engine import Database
from aspen.database.models import WorkflowStatus
from aspen.workflows.steps import StepError
from aspen.workflows.store import TreeKeys
from aspen.workflows.tree.templates import (
    FILTER_LINEAGES,
    Filters,
    Place,
    Template,
    build_configuration,
    read_filters,
    template,
    title,
)

COLUMNS = {
    "SC2": (
        *("strain", "virus", "gisaid_epi_isl", "genbank_accession", "date"),
        *("region", "country", "division", "location"),
        *("region_exposure", "country_exposure", "division_exposure"),
        *("segment", "length", "host", "age", "sex", "pango_lineage", "GISAID_clade"),
        *("originating_lab", "submitting_lab", "authors", "url", "title", "paper_url"),
        "date_submitted",
    ),
    "MPX": (
        *("accession", "genbank_accession_rev", "strain", "date"),
        *("region", "country", "division", "location"),
        *(
            "host",
            "date_submitted",
            "sra_accession",
            "abbr_authors",
            "clade",
            "outbreak",
            "lineage",
        ),
        *("coverage", "missing_data", "divergence", "nonACGTN"),
        *("QC_missing_data", "QC_mixed_sites", "QC_rare_mutations", "QC_frame_shifts"),
        *("QC_stop_codons", "frame_shifts", "is_reverse_complement", "authors", "institution"),
    ),
}
"""The columns of metadata, by pathogen: those of Nextstrain's workflows."""
ALIGNED = frozenset({"MPX"})
"""The pathogens whose aligned genomes are exported; those of others are aligned afterwards."""

_BATCH = 50  # genomes; some 1.5 MB of SARS-CoV-2
_STATEMENT_MS = 600_000
_KNOWN = re.compile("[ACGT]")
_LINES = re.compile(r"^[>;].*$", re.MULTILINE)
_SPACES = re.compile(r"\s+")

_RUN = """
SELECT w.workflow_status, w.start_datetime, r.name, r.tree_type, r.template_args, r.gisaid_ids,
       p.slug AS pathogen, p.id AS pathogen_id, g.id AS group_id, g.name AS group_name,
       coalesce(nullif(g.location, ''), nullif(g.division, ''), g.prefix) AS stem,
       g.default_tree_location_id
  FROM aspen.workflows w
  JOIN aspen.phylo_runs r ON r.workflow_id = w.id
  JOIN aspen.pathogens p ON p.id = r.pathogen_id
  JOIN aspen.groups g ON g.id = r.group_id
 WHERE w.id = :run
"""
_RESET = """
UPDATE aspen.workflows SET workflow_status = 'STARTED', end_datetime = NULL
 WHERE id = :run AND workflow_status <> 'COMPLETED'
"""
_DUMP = """
SELECT d.s3_bucket AS bucket, d.sequences_s3_key AS sequences, d.metadata_s3_key AS metadata
  FROM aspen.workflow_inputs i JOIN aspen.aligned_repository_data d ON d.entity_id = i.entity_id
 WHERE i.workflow_id = :run ORDER BY d.entity_id DESC LIMIT 1
"""
_PLACE = """
SELECT id, region, country, division, location, latitude, longitude
  FROM aspen.locations WHERE id = :location
"""
_PREFIXES = "SELECT prefix FROM aspen.pathogen_repo_configs WHERE pathogen_id = :pathogen"
_LINEAGES = "SELECT lineage FROM aspen.pathogen_lineages WHERE pathogen_id = :pathogen"
_CHOSEN = """
SELECT DISTINCT u.sample_id
  FROM aspen.workflow_inputs i
  JOIN aspen.uploaded_pathogen_genomes u ON u.pathogen_genome_id = i.entity_id
 WHERE i.workflow_id = :run
"""
_GENOMES = {
    False: "uploaded_pathogen_genomes made ON made.sample_id = s.id",
    True: "aligned_pathogen_genome made ON made.sample_id = s.id",
}
_NAMES = """
SELECT s.id, s.public_identifier, s.private_identifier, g.name AS group_name,
       s.id = ANY(:chosen) AS chosen, made.sample_id IS NOT NULL AS has_genome
  FROM aspen.samples s
  JOIN aspen.groups g ON g.id = s.submitting_group_id
  LEFT JOIN aspen.{genomes}
 WHERE s.pathogen_id = :pathogen AND (s.submitting_group_id = :group OR s.id = ANY(:chosen))
 ORDER BY s.id
"""
_SAMPLES = """
SELECT s.id, genome.sequence, s.collection_date, s.sample_collected_by, s.authors,
       g.name AS lab, u.upload_date,
       place.region, place.country, place.division, place.location,
       (SELECT l.lineage FROM aspen.sample_lineages l WHERE l.sample_id = s.id
         ORDER BY l.id LIMIT 1) AS lineage,
       (SELECT a.accession FROM aspen.accessions a WHERE a.sample_id = s.id
          AND a.accession_type = 'GISAID_ISL') AS gisaid,
       (SELECT a.accession FROM aspen.accessions a WHERE a.sample_id = s.id
          AND a.accession_type = 'GENBANK') AS genbank
  FROM aspen.samples s
  JOIN aspen.groups g ON g.id = s.submitting_group_id
  JOIN aspen.{genomes}
  JOIN aspen.pathogen_genomes genome ON genome.entity_id = made.pathogen_genome_id
  LEFT JOIN aspen.uploaded_pathogen_genomes u ON u.sample_id = s.id
  LEFT JOIN aspen.locations place ON place.id = s.location_id
 WHERE s.id = ANY(:samples)
"""


_PLACES = """
SELECT DISTINCT ON (level, place) level, place, latitude, longitude
  FROM (SELECT id, latitude, longitude, coalesce(location, division, country, region) AS place,
               CASE WHEN location IS NOT NULL THEN 'location'
                    WHEN division IS NOT NULL THEN 'division'
                    WHEN country IS NOT NULL THEN 'country' ELSE 'region' END AS level
          FROM aspen.locations
         WHERE latitude IS NOT NULL AND longitude IS NOT NULL) AS known
 WHERE place IS NOT NULL
 ORDER BY level, place, id
"""


@dataclass(frozen=True)
class Run:
    """A run as later steps need it; `run.json` has the same keys.

    Attributes:
        run_id: The workflow's ID.
        pathogen: The slug.
        group: The name of the group.
        filestem: The folder in the bucket: place and type of the tree.
        title: The title of the tree.
        place: The place of the tree, by level.
        template_args: The arguments of the run, as they were given.
        resolved_template_args: The same with the location, lineages without wildcards, and dates.
        dump: The bucket and keys of the repository's dump: ``bucket``, ``sequences``, ``metadata``.
        samples: The chosen samples: ``id`` and ``strain``.
        public: The chosen strains of the repository.
        filters: The dates and lineages, as ``start``, ``end``, and ``lineages``.
        seed: The number from which the choice among equal samples follows.
    """

    run_id: int
    pathogen: str
    group: str
    tree_type: str
    name: str
    filestem: str
    title: str
    started: str | None
    place: Mapping[str, str]
    template_args: Mapping[str, Any]
    resolved_template_args: Mapping[str, Any]
    bucket: str
    dump: Mapping[str, str]
    samples: tuple[Mapping[str, Any], ...]
    public: tuple[str, ...]
    filters: Mapping[str, Any]
    seed: int
    focal: tuple[str, ...] = ()

    @property
    def keys(self) -> TreeKeys:
        """Return the keys of the run's files."""
        return TreeKeys(self.filestem, self.run_id, self.pathogen)

    def template(self) -> Template:
        """Return the subsamples of the tree."""
        days = [
            date.fromisoformat(text) if (text := self.filters.get(name)) else None
            for name in ("start", "end")
        ]
        return template(
            self.pathogen,
            self.tree_type,
            Place(**self.place),
            chosen=len(self.focal),
            filters=Filters(days[0], days[1], tuple(self.filters["lineages"])),
            group=self.group,
        )

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps(vars(self), indent=1, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Run:
        """Return the run in a file."""
        found = json.loads(path.read_text(encoding="utf-8"))
        lists = {name: tuple(found[name]) for name in ("samples", "public", "focal")}
        return cls(**{**found, **lists})


@dataclass
class _Names:
    """The samples of a run by their strains.

    Attributes:
        strains: The strain of each sample that is exported, by its ID.
        chosen: The IDs of the chosen ones.
        notes: The samples that are left out, with the reason, in words for people.
    """

    strains: dict[int, str] = field(default_factory=dict)
    chosen: set[int] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)


def export(database: Database, run_id: int, bucket: str, folder: Path) -> tuple[Run, list[str]]:
    """Write the files of a run, and set its status to STARTED again.

    Args:
        database: The database, with sessions that may write.
        run_id: The run.
        bucket: The bucket of the database's files.
        folder: The folder for the files.

    Returns:
        The run, and notes about samples that are left out.

    Raises:
        StepError: The run or its samples are not fit for a tree.
    """
    with database.begin() as session:
        session.execute(sa.text(_RESET), {"run": run_id})
    patient = database.with_limits(statement_ms=_STATEMENT_MS)
    try:
        with patient.connected(transaction=True) as connection:
            # Everything is read as of one moment.
            connection.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
            return _export(connection, run_id, bucket, folder)
    finally:
        patient.dispose()


def _export(
    connection: Connection, run_id: int, bucket: str, folder: Path
) -> tuple[Run, list[str]]:
    row = _buildable(connection, run_id)
    dump = connection.execute(sa.text(_DUMP), {"run": run_id}).mappings().one_or_none()
    if dump is None:
        raise StepError(
            f"Run {run_id} has no public data to compare its samples with. Import a repository's"
            " data, then start a new run."
        )
    remove = _prefix_remover(connection, row["pathogen_id"])
    names = _names(connection, row, run_id, remove)
    public = tuple(dict.fromkeys(map(remove, row["gisaid_ids"] or ())))
    run = _described(connection, row, run_id, bucket, dict(dump), names, public)
    made = run.template()  # before the long part: it refuses what has no template
    _write_samples(connection, run, names, folder)
    (folder / "include.txt").write_text("".join(f"{one}\n" for one in run.focal), encoding="utf-8")
    _write_yaml(
        folder / "builds.yaml", build_configuration(made, run.title, include=bool(run.focal))
    )
    _write_places(connection, folder / "lat_longs.tsv")
    run.write(folder / "run.json")
    return run, names.notes


def _buildable(connection: Connection, run_id: int) -> sa.RowMapping:
    row = connection.execute(sa.text(_RUN), {"run": run_id}).mappings().one_or_none()
    if row is None:
        raise StepError(f"Run {run_id} does not exist.")
    if row["workflow_status"] == WorkflowStatus.COMPLETED.value:
        raise StepError(f"Run {run_id} is completed. To build another tree, start a new run.")
    if row["pathogen"] not in COLUMNS:
        raise StepError(f"Trees of {row['pathogen']} are not supported.")
    return row


def _described(
    connection: Connection,
    row: sa.RowMapping,
    run_id: int,
    bucket: str,
    dump: Mapping[str, str],
    names: _Names,
    public: tuple[str, ...],
) -> Run:
    given = row["template_args"] or {}
    location = given.get("location_id") or row["default_tree_location_id"]
    place = connection.execute(sa.text(_PLACE), {"location": location}).mappings().one_or_none()
    if place is None:
        raise StepError(f"The location of the tree, {location}, does not exist any more.")
    wanted = {"pathogen": row["pathogen_id"]}
    known = connection.scalars(sa.text(_LINEAGES), wanted) if given.get(FILTER_LINEAGES) else ()
    started: datetime | None = row["start_datetime"]
    # Words such as "12 weeks ago" mean the same when the step is repeated.
    filters = read_filters(given, known, started or datetime.now())  # noqa: DTZ005 - naive, as the column
    levels = {name: place[name] or "" for name in ("region", "country", "division", "location")}
    resolved = {
        **{key: given[key] for key in given if key not in {"location_id", FILTER_LINEAGES}},
        "location": dict(place),
        **({FILTER_LINEAGES: list(filters.lineages)} if filters.lineages else {}),
    }
    chosen = [
        {"id": one, "strain": names.strains[one]}
        for one in sorted(names.chosen & names.strains.keys())
    ]
    return Run(
        run_id=run_id,
        pathogen=row["pathogen"],
        group=row["group_name"],
        tree_type=row["tree_type"],
        name=row["name"] or "",
        filestem=f"{row['stem']}/{row['tree_type']}",
        title=title(row["tree_type"], Place(**levels), filters, started),
        started=started.isoformat() if started else None,
        place=levels,
        template_args=given,
        resolved_template_args=resolved,
        bucket=bucket,
        dump=dump,
        samples=tuple(chosen),
        public=public,
        filters={
            "start": filters.start.isoformat() if filters.start else None,
            "end": filters.end.isoformat() if filters.end else None,
            "lineages": list(filters.lineages),
        },
        seed=run_id,
        focal=tuple(dict.fromkeys([*(str(one["strain"]) for one in chosen), *public])),
    )


def _prefix_remover(connection: Connection, pathogen: int) -> Any:
    """Return a function that takes a repository's prefix off a public identifier."""
    prefixes = connection.scalars(sa.text(_PREFIXES), {"pathogen": pathogen}).all()
    pattern = re.compile(f"(?:{'|'.join(map(re.escape, prefixes)) or '(?!)'})/", re.IGNORECASE)

    def remove(identifier: str) -> str:
        found = pattern.match(identifier)
        return identifier[found.end() :] if found else identifier

    return remove


def _names(connection: Connection, row: sa.RowMapping, run_id: int, remove: Any) -> _Names:
    """Return the samples that have a genome, each under a name of its own.

    Raises:
        StepError: A chosen sample has no genome, or two of them have the same name.
    """
    chosen = list(connection.scalars(sa.text(_CHOSEN), {"run": run_id}))
    aligned = row["pathogen"] in ALIGNED
    found, holders = _Names(chosen=set(chosen)), dict[str, sa.RowMapping]()
    missing: list[str] = []
    for sample in _candidates(connection, row, chosen, aligned=aligned):
        strain = remove(sample["public_identifier"])
        if sample["has_genome"]:
            found.notes += _hold(holders, strain, sample)
        elif sample["chosen"]:
            missing.append(_described_sample(sample))
    if missing:
        kind = "aligned genome" if aligned else "genome"
        advice = "run quality control for it" if aligned else "upload one"
        raise StepError(
            f"{_listed(missing)}: no {kind}. For each, {advice}, or start a run without it."
        )
    found.strains = {sample["id"]: strain for strain, sample in holders.items()}
    return found


def _candidates(
    connection: Connection, row: sa.RowMapping, chosen: list[int], *, aligned: bool
) -> Iterable[sa.RowMapping]:
    query = sa.text(_NAMES.format(genomes=_GENOMES[aligned])).bindparams(
        sa.bindparam("chosen", type_=sa.ARRAY(sa.Integer))
    )
    values = {"chosen": chosen, "pathogen": row["pathogen_id"], "group": row["group_id"]}
    return connection.execute(query, values).mappings()


def _hold(holders: dict[str, sa.RowMapping], strain: str, sample: sa.RowMapping) -> list[str]:
    """Give a strain to a sample or leave it to its holder; return notes about the one left out."""
    other = holders.get(strain)
    if other is not None and other["chosen"] and sample["chosen"]:
        raise StepError(
            f"Two of the chosen samples have the public identifier {strain}:"
            f" {_described_sample(other)} and {_described_sample(sample)}. A tree can show only"
            " one of them. Change one identifier, or choose only one of the two."
        )
    if other is None or (sample["chosen"] and not other["chosen"]):
        holders[strain] = sample
    if other is None:
        return []
    left_out = sample if holders[strain] is other else other
    note = (
        f"Left out {_described_sample(left_out)}: its public identifier is also that of"
        f" {_described_sample(holders[strain])}."
    )
    return [note]


def _described_sample(sample: sa.RowMapping) -> str:
    return f"sample {sample['public_identifier']} (ID {sample['id']}, {sample['group_name']})"


def _listed(names: Iterable[str], limit: int = 5) -> str:
    """Return the first names, and how many more there are, as the beginning of a sentence."""
    every = list(names)
    more = f", and {len(every) - limit} more" if len(every) > limit else ""
    text = ", ".join(every[:limit]) + more
    return text[:1].upper() + text[1:]


def _write_samples(connection: Connection, run: Run, names: _Names, folder: Path) -> None:
    """Write sequences and metadata of all samples with known bases; both files match.

    Raises:
        StepError: A chosen sample has none.
    """
    empty: list[str] = []
    columns = COLUMNS[run.pathogen]
    with (
        (folder / "sequences.fasta").open("w", encoding="utf-8") as sequences,
        (folder / "metadata.tsv").open("w", encoding="utf-8") as metadata,
    ):
        metadata.write("\t".join(columns) + "\n")
        for sample in _streamed(connection, run, list(names.strains)):
            strain = names.strains[sample["id"]]
            sequence = _cleaned(sample["sequence"], aligned=run.pathogen in ALIGNED)
            if _KNOWN.search(sequence):
                sequences.write(f">{strain}\n{sequence}\n")
                row = _metadata(run.pathogen, sample, strain, sequence)
                metadata.write("\t".join(_cell(row.get(name)) for name in columns) + "\n")
                continue
            reason = "has no known bases" if sample["sequence"].strip() else "is empty"
            text = f"the genome of {strain} (sample ID {sample['id']}) {reason}"
            if sample["id"] in names.chosen:
                empty.append(text)
            else:
                names.notes.append(f"Left out a sample: {text}.")
    if empty:
        raise StepError(
            f"{_listed(empty)}. Upload the sequence again, or start a run without the sample."
        )


def _write_places(connection: Connection, path: Path) -> None:
    """Write the coordinates of all places, as Augur reads them: level, name, and degrees.

    Augur tells places of one level apart by name only, so the first of a name counts.
    """
    with path.open("w", encoding="utf-8") as file:
        for row in connection.execute(sa.text(_PLACES)):
            file.write("\t".join(map(_cell, row)) + "\n")


def _streamed(connection: Connection, run: Run, samples: list[int]) -> Iterator[sa.RowMapping]:
    query = sa.text(_SAMPLES.format(genomes=_GENOMES[run.pathogen in ALIGNED])).bindparams(
        sa.bindparam("samples", type_=sa.ARRAY(sa.Integer))
    )
    rows = connection.execute(query, {"samples": samples}, execution_options={"yield_per": _BATCH})
    yield from rows.mappings()


def _cleaned(sequence: str, *, aligned: bool) -> str:
    """Return a sequence without header lines, and without N at its ends unless it is aligned."""
    text = _SPACES.sub("", _LINES.sub("", sequence)).upper()
    return text if aligned else text.strip("N")


def _metadata(
    pathogen: str, sample: sa.RowMapping, strain: str, sequence: str
) -> dict[str, object]:
    common = _common(sample, strain)
    if pathogen == "MPX":
        return {
            **common,
            "accession": strain,
            "lineage": sample["lineage"],
            "institution": sample["lab"],
        }
    return {
        **common,
        "virus": "ncov",
        "gisaid_epi_isl": sample["gisaid"],
        "genbank_accession": sample["genbank"],
        **{f"{name}_exposure": sample[name] for name in ("region", "country", "division")},
        "segment": "genome",
        "length": len(sequence),
        "age": "?",
        "sex": "?",
        "pango_lineage": sample["lineage"],
        "originating_lab": sample["sample_collected_by"],
        "submitting_lab": sample["lab"],
    }


def _common(sample: sa.RowMapping, strain: str) -> dict[str, object]:
    """Return the cells that the metadata of every pathogen have."""
    authors = sample["authors"]
    return {
        "strain": strain,
        "date": sample["collection_date"],
        "date_submitted": sample["upload_date"] and sample["upload_date"].date(),
        "authors": ", ".join(map(str, authors)) if isinstance(authors, list) else authors,
        "host": "Human",
        **{name: sample[name] for name in ("region", "country", "division", "location")},
    }


def _cell(value: object) -> str:
    """Return a value as the cell of a table whose cells cannot be quoted."""
    return "" if value is None else _SPACES.sub(" ", str(value)).strip()


def _write_yaml(path: Path, content: Mapping[str, Any]) -> None:
    import yaml

    with path.open("w", encoding="utf-8") as file:
        yaml.safe_dump(content, file, allow_unicode=True, sort_keys=True)
