"""The test data that show each role's permissions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from aspen.database.engine import Database
from aspen.local.aws.content import ObjectFolder
from aspen.local.seed import seed_base, seed_roles, seed_runs, seed_samples

COUNTS = {1: (1000, 200), 2: (20, 4), 3: (5, 1)}


def test_every_group_has_expected_public_and_private_samples(roles: Database) -> None:
    found = rows(
        roles,
        "SELECT submitting_group_id, count(*), count(*) FILTER (WHERE private)"
        " FROM aspen.samples GROUP BY 1",
    )
    assert {group: tuple(counts) for group, *counts in found} == COUNTS


def test_repeated_role_seed_changes_nothing(roles: Database, roles_objects: ObjectFolder) -> None:
    again = seed_roles(roles, roles_objects)
    assert {**vars(again), "seconds": 0} == dict.fromkeys(vars(again), 0)


def test_role_seed_adds_only_missing_samples(seeded: Database, tmp_path: Path) -> None:
    assert seed_roles(seeded, ObjectFolder(tmp_path)).samples == 940 + 20 + 5
    private = "SELECT count(*) FROM aspen.samples WHERE private"
    assert rows(seeded, private) == [(205,)]


def test_seeded_runs_have_every_status(roles: Database) -> None:
    found = rows(
        roles,
        "SELECT r.group_id, w.workflow_status, count(t.entity_id) FROM aspen.phylo_runs AS r"
        " JOIN aspen.workflows AS w ON w.id = r.workflow_id"
        " LEFT JOIN aspen.entities AS e ON e.producing_workflow_id = w.id"
        " LEFT JOIN aspen.phylo_trees AS t ON t.entity_id = e.id"
        " GROUP BY r.workflow_id, 1, 2 ORDER BY 1, 2, 3",
    )
    assert found == [
        (1, "COMPLETED", 1),
        (1, "COMPLETED", 1),
        (1, "FAILED", 0),
        (1, "STARTED", 0),
        (2, "COMPLETED", 1),
    ]


def test_tree_file_contains_its_samples_and_public_samples(
    roles: Database, roles_objects: ObjectFolder
) -> None:
    stored = {(bucket, key): body for bucket, key, body in roles_objects}
    for tree, bucket, key in rows(
        roles, "SELECT entity_id, s3_bucket, s3_key FROM aspen.phylo_trees"
    ):
        document = json.loads(stored[bucket, key])
        assert document["version"] == "v2"
        assert document["meta"]["panels"] == ["tree"]
        names = {leaf["name"] for leaf in leaves(document["tree"])}
        own = rows(
            roles,
            "SELECT public_identifier FROM aspen.phylo_tree_samples JOIN aspen.samples"
            f" ON id = sample_id WHERE phylo_tree_id = {tree}",
        )
        assert own
        assert {name for (name,) in own} < names
        assert "hCoV-19/USA/WA-CTX-1/2020" in names


def test_tree_divergence_never_decreases_along_branches(roles_objects: ObjectFolder) -> None:
    trees = [json.loads(body)["tree"] for _, key, body in roles_objects if key.endswith(".json")]
    for tree in trees:
        for clade in tree["children"]:
            least = clade["node_attrs"]["div"]
            assert all(leaf["node_attrs"]["div"] >= least for leaf in clade["children"])


def test_missing_tree_file_is_recreated_identically(
    roles: Database, roles_objects: ObjectFolder
) -> None:
    kept = {(bucket, key): body for bucket, key, body in roles_objects}
    lost = ObjectFolder(Path(str(roles_objects._folder) + "-again"))
    assert seed_runs(roles, lost).runs == 0
    assert {(bucket, key): body for bucket, key, body in lost} == kept


def test_seed_has_aligned_repository_data_for_runs(roles: Database) -> None:
    newest = rows(
        roles,
        "SELECT p.slug, r.name FROM aspen.aligned_repository_data AS d"
        " JOIN aspen.pathogens AS p ON p.id = d.pathogen_id"
        " JOIN aspen.public_repositories AS r ON r.id = d.public_repository_id"
        " JOIN aspen.entities AS e ON e.id = d.entity_id"
        " JOIN aspen.workflows AS w ON w.id = e.producing_workflow_id"
        " WHERE w.end_datetime IS NOT NULL AND w.workflow_status = 'COMPLETED'",
    )
    assert sorted(newest) == [("MPX", "GenBank"), ("SC2", "GISAID"), ("SC2", "GenBank")]


def test_trees_are_created_once_samples_exist(database: Database, tmp_path: Path) -> None:
    seed_base(database)
    objects = ObjectFolder(tmp_path)
    first = seed_runs(database, objects)
    assert (first.runs, first.trees) == (2, 0)
    seed_samples(database, 3)
    assert seed_runs(database, objects).trees == 2
    assert seed_runs(database, objects).runs == 0


def test_seeded_mutations_match_sequences(roles: Database) -> None:
    found = rows(
        roles,
        "SELECT m.substitutions, g.sequence FROM aspen.sample_mutations AS m"
        " JOIN aspen.uploaded_pathogen_genomes AS u USING (sample_id)"
        " JOIN aspen.pathogen_genomes AS g ON g.entity_id = u.pathogen_genome_id LIMIT 50",
    )
    named = [(one, sequence) for many, sequence in found for one in many.split(",") if one]
    assert len(named) > 50
    assert all(sequence[int(one[1:-1]) - 1] == one[-1] != one[0] for one, sequence in named)


def leaves(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if "children" not in node:
        yield node
    for child in node.get("children", ()):
        yield from leaves(child)


def rows(database: Database, statement: str) -> list[tuple[Any, ...]]:
    with database.reading() as session:
        return [tuple(row) for row in session.execute(sa.text(statement))]
