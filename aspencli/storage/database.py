"""The rows that refer to objects in a bucket, and the tree runs that objects belong to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import sqlalchemy as sa

from aspencli.errors import NotFoundError

if TYPE_CHECKING:
    from aspen.database.sessions import Reader

_REFERENCES = sa.text("""
SELECT 'phylo_trees' AS "table", t.entity_id AS id, t.s3_bucket AS bucket, t.s3_key AS key,
       r.workflow_id AS run, g.id AS group_id, g.name AS "group"
  FROM aspen.phylo_trees t
  JOIN aspen.entities e ON e.id = t.entity_id
  LEFT JOIN aspen.phylo_runs r ON r.workflow_id = e.producing_workflow_id
  LEFT JOIN aspen.groups g ON g.id = e.group_id
UNION ALL
SELECT d."table", d.id, d.bucket, d.key, NULL, NULL, NULL
  FROM (
    SELECT 'raw_gisaid_dump', entity_id, s3_bucket, s3_key FROM aspen.raw_gisaid_dump
    UNION ALL
    SELECT 'processed_gisaid_dump', entity_id, s3_bucket, unnest(ARRAY[sequences_s3_key,
           metadata_s3_key]) FROM aspen.processed_gisaid_dump
    UNION ALL
    SELECT 'aligned_gisaid_dump', entity_id, s3_bucket, unnest(ARRAY[sequences_s3_key,
           metadata_s3_key]) FROM aspen.aligned_gisaid_dump
    UNION ALL
    SELECT 'raw_repository_data', entity_id, s3_bucket, s3_key FROM aspen.raw_repository_data
    UNION ALL
    SELECT 'processed_repository_data', entity_id, s3_bucket, unnest(ARRAY[sequences_s3_key,
           metadata_s3_key]) FROM aspen.processed_repository_data
    UNION ALL
    SELECT 'aligned_repository_data', entity_id, s3_bucket, unnest(ARRAY[sequences_s3_key,
           metadata_s3_key]) FROM aspen.aligned_repository_data
    UNION ALL
    SELECT 'aligned_peptides', id, s3_bucket, s3_key FROM aspen.aligned_peptides
  ) AS d ("table", id, bucket, key)
""")
_RUNS = sa.text("""
SELECT r.workflow_id AS id, w.workflow_status AS status, g.id AS group_id, g.name AS "group",
       t.tree
  FROM aspen.phylo_runs r
  JOIN aspen.workflows w ON w.id = r.workflow_id
  JOIN aspen.groups g ON g.id = r.group_id
  LEFT JOIN (
    SELECT e.producing_workflow_id AS run, min(t.entity_id) AS tree
      FROM aspen.phylo_trees t
      JOIN aspen.entities e ON e.id = t.entity_id
     GROUP BY e.producing_workflow_id
  ) AS t ON t.run = r.workflow_id
""")
_TREES = "phylo_trees"
_STARTED = "STARTED"


class Reference(NamedTuple):
    """A row that refers to an object."""

    table: str
    id: int
    bucket: str
    key: str
    run: int | None
    group_id: int | None
    group: str | None

    @property
    def name(self) -> str:
        """Return the table and the ID."""
        return f"{self.table} {self.id}"

    @property
    def tree(self) -> int | None:
        """Return the ID of the tree, if the row is one."""
        return self.id if self.table == _TREES else None


class TreeRun(NamedTuple):
    """A run that builds a tree."""

    id: int
    status: str
    group_id: int
    group: str
    tree: int | None

    @property
    def is_running(self) -> bool:
        """Return True if the run has not ended, so that it may write more files and rows."""
        return self.status == _STARTED


@dataclass(frozen=True)
class Records:
    """The database's side: rows by the bucket and key that they refer to, and runs by ID."""

    references: dict[tuple[str, str], Reference]
    runs: dict[int, TreeRun]

    def tree(self, number: int) -> Reference:
        """Return the row of a tree.

        Raises:
            NotFoundError: There is none.
        """
        for reference in self.references.values():
            if reference.tree == number:
                return reference
        raise NotFoundError(
            f"No such tree: {number}", hint="List the trees: aspencli phylo-runs list"
        )

    def run_of_tree(self, number: int) -> int | None:
        """Return the run that built a tree, or None if no run did.

        Raises:
            NotFoundError: There is no such tree.
        """
        return self.tree(number).run


def read_records(reader: Reader) -> Records:
    """Return the rows that refer to objects, and all runs that build trees."""
    references = (Reference(*row) for row in reader.execute(_REFERENCES))
    runs = (TreeRun(*row) for row in reader.execute(_RUNS))
    return Records(
        {(each.bucket, each.key): each for each in references}, {each.id: each for each in runs}
    )
