"""Samples whose columns can all be inspected, for bulk updates of several columns."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from tests.cli.commands.mapping_lab import Lab

# Private and public identifiers; the last sample has no genome.
NAMES = {"L-1": "P-1", "L-2": "P-2", "L-3": "P-3", "L-4": "P-4", "L-5": "P-5"}
COLUMNS = ("private", "public", "collected", "sequenced", "hidden", "location")
FIRST: Mapping[str, Any] = {
    "collected": "2023-05-17",
    "sequenced": "2023-05-20",
    "hidden": True,
    "location": None,
}
PLACES = """
INSERT INTO aspen.locations (id, region, country, division, location) VALUES
    (901, 'Europe', NULL, NULL, NULL),
    (902, 'Europe', 'Greece', NULL, NULL),
    (903, 'Europe', 'Greece', 'Attica', NULL),
    (904, 'Europe', 'Greece', 'Attica', 'Athens'),
    (905, 'Europe', 'Georgia', NULL, NULL),
    (906, 'North America', 'USA', 'Georgia', NULL),
    (907, 'Europe', 'greece', NULL, NULL),
    (908, 'Asia', 'Macao', NULL, NULL),
    (909, 'Asia', NULL, 'Macao', NULL),
    (910, 'Asia', 'MACAU', NULL, NULL),
    (911, 'Asia', 'macau', NULL, NULL)
ON CONFLICT DO NOTHING
"""
GENOMES = """
WITH wanted AS (
    SELECT id, nextval('aspen.entities_id_seq') AS entity FROM aspen.samples
     WHERE submitting_group_id = :group AND private_identifier <> 'L-5'
), entity AS (
    INSERT INTO aspen.entities (id, entity_type)
    SELECT entity, 'UPLOADED_PATHOGEN_GENOME' FROM wanted
), genome AS (
    INSERT INTO aspen.pathogen_genomes (entity_id, sequence, num_unambiguous_sites,
           num_missing_alleles, num_mixed, sequencing_date)
    SELECT entity, 'ACGT', 4, 0, 0, '2023-05-20' FROM wanted
)
INSERT INTO aspen.uploaded_pathogen_genomes (pathogen_genome_id, sample_id)
SELECT entity, id FROM wanted
"""
_STATE = """
SELECT s.id, s.private_identifier AS private, s.public_identifier AS public,
       s.collection_date::text AS collected, g.sequencing_date::text AS sequenced,
       s.private AS hidden, s.location_id AS location
  FROM aspen.samples s
  LEFT JOIN aspen.uploaded_pathogen_genomes u ON u.sample_id = s.id
  LEFT JOIN aspen.pathogen_genomes g ON g.entity_id = u.pathogen_genome_id
 WHERE s.submitting_group_id = :group ORDER BY s.id
"""
# Everything that no bulk update may change: other groups' data, and the rest of each row.
_REST = """
SELECT md5(string_agg((to_jsonb(s) - 'original_submission' - CASE
           WHEN s.submitting_group_id = :group THEN ARRAY['private_identifier',
               'public_identifier', 'collection_date', 'private', 'location_id']
           ELSE ARRAY['x'] END)::text
           || coalesce((to_jsonb(g) - CASE WHEN s.submitting_group_id = :group
                        THEN 'sequencing_date' ELSE 'x' END)::text, ''), ' ' ORDER BY s.id))
  FROM aspen.samples s
  LEFT JOIN aspen.uploaded_pathogen_genomes u ON u.sample_id = s.id
  LEFT JOIN aspen.pathogen_genomes g ON g.entity_id = u.pathogen_genome_id
"""

State = dict[str, dict[str, Any]]
"""The values of each sample, by its original private identifier."""


@dataclass(frozen=True)
class Ended:
    """The result of a command, with the changes it made to each sample."""

    code: int
    out: str
    err: str
    changed: State

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Bench:
    """A group of samples with genomes, and files for them.

    Attributes:
        lab: The database.
        folder: The folder for files.
        run: Runs a command; returns its exit code, stdout, and stderr.
    """

    lab: Lab
    folder: Path
    run: Callable[..., tuple[int, str, str]]
    names: Mapping[str, str] = field(default_factory=lambda: NAMES)

    def __post_init__(self) -> None:
        self.lab.execute(PLACES)
        self.group = self.lab.group(self.names)
        self.lab.execute(GENOMES, group=self.group)
        with self.lab.engine.connect() as connection:
            found = connection.execute(sa.text(_STATE), {"group": self.group})
            self.ids = {row.private: int(row.id) for row in found}

    def state(self) -> State:
        """Return the current values of each sample."""
        first = {number: name for name, number in self.ids.items()}
        with self.lab.engine.connect() as connection:
            rows = connection.execute(sa.text(_STATE), {"group": self.group}).all()
        return {first[row.id]: dict(zip(COLUMNS, row[1:], strict=True)) for row in rows}

    def file(self, content: str | bytes, name: str = "changes.csv") -> Path:
        """Write an input file."""
        path = self.folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def update(self, content: str | bytes | Path, *options: str) -> Ended:
        """Run the bulk update, and check that it changes nothing but the group's samples."""
        path = content if isinstance(content, Path) else self.file(content)
        words = ["samples", "bulk-update", "--group-id", str(self.group), "--from", str(path)]
        return self.watch(*words, *(options or ("--yes",)))

    def watch(self, *words: str) -> Ended:
        """Run a command, and compare the samples before and after it."""
        before, rest = self.state(), self._rest()
        code, out, err = self.run(*words)
        now = self.state()
        assert self._rest() == rest, "more was changed than what a bulk update may"
        changed = {
            name: {key: value for key, value in now[name].items() if value != before[name][key]}
            for name in before
        }
        return Ended(code, out, err, {name: values for name, values in changed.items() if values})

    def undo(self, what: Path | str, *options: str) -> Ended:
        """Undo a run."""
        return self.watch("samples", "undo", str(what), *(options or ("--yes",)))

    def last_run(self) -> dict[str, Any]:
        """Return the newest run in the history."""
        return self.history()[0]

    def undo_file(self) -> Path:
        """Return the undo file of the newest run."""
        code, out, err = self.run("history", "show", self.last_run()["run"], "--output", "json")
        assert code == 0, err
        return Path(json.loads(out)[0]["undo_file"])

    def history(self) -> list[dict[str, Any]]:
        code, out, err = self.run("history", "--output", "json")
        assert code == 0, err
        found: list[dict[str, Any]] = json.loads(out)
        return found

    def set(self, name: str, **values: Any) -> None:
        """Change a sample, as a concurrent user would."""
        sets = ", ".join(f"{column} = :{column}" for column in values)
        self.lab.execute(
            f"UPDATE aspen.samples SET {sets} WHERE id = :id", id=self.ids[name], **values
        )

    def _rest(self) -> str:
        with self.lab.engine.connect() as connection:
            return str(connection.scalar(sa.text(_REST), {"group": self.group}))
