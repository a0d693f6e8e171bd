"""The test users, and generated samples."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from aspen.database.engine import Database
from aspen.local.seed import seed_base, seed_samples
from aspen.local.seed.genomes import reference
from aspencli.errors import BadInputError, ConflictError, NotFoundError

_ALL_OF_A_SAMPLE = """
SELECT string_agg(concat_ws('|', s.private_identifier, s.public_identifier, s.collection_date,
    s.private, s.host, s.purpose_of_sampling, s.authors, l.location, g.sequence,
    g.num_missing_alleles, g.sequencing_date, u.upload_date, u.sequencing_depth, i.lineage,
    q.qc_score, a.accession), E'\n' ORDER BY s.private_identifier)
FROM aspen.samples AS s
    JOIN aspen.locations AS l ON l.id = s.location_id
    JOIN aspen.uploaded_pathogen_genomes AS u ON u.sample_id = s.id
    JOIN aspen.pathogen_genomes AS g ON g.entity_id = u.pathogen_genome_id
    JOIN aspen.entities AS e ON e.id = g.entity_id AND e.group_id = s.submitting_group_id
    LEFT JOIN aspen.sample_lineages AS i ON i.sample_id = s.id
    LEFT JOIN aspen.sample_qc_metrics AS q ON q.sample_id = s.id
    LEFT JOIN aspen.accessions AS a ON a.sample_id = s.id
"""


@pytest.fixture
def based(database: Database) -> Database:
    seed_base(database)
    return database


def test_seeded_users_have_their_roles(based: Database) -> None:
    rows = _rows(
        based,
        "SELECT split_part(u.email, '@', 1), ur.group_id, r.name FROM aspen.users AS u"
        " JOIN aspen.user_roles AS ur ON ur.user_id = u.id"
        " JOIN aspen.roles AS r ON r.id = ur.role_id",
    )
    assert set(rows) == {
        ("gadmin", 1, "admin"),
        ("member", 1, "member"),
        ("viewer", 1, "viewer"),
        ("sysmember", 1, "member"),
        ("g2admin", 2, "admin"),
        ("g2member", 2, "member"),
        ("g3admin", 3, "admin"),
        ("g3member", 3, "member"),
        ("multi", 1, "member"),
        ("multi", 2, "admin"),
    }
    admins = _rows(based, "SELECT email FROM aspen.users WHERE system_admin ORDER BY email")
    assert admins == [("sysadmin@example.org",), ("sysmember@example.org",)]


def test_seeded_groups_have_one_way_group_roles(based: Database) -> None:
    rows = _rows(
        based,
        "SELECT grantor_group_id, name, grantee_group_id FROM aspen.group_roles"
        " JOIN aspen.roles ON roles.id = role_id ORDER BY 1",
    )
    assert rows == [(1, "viewer", 2), (2, "member", 3)]


def test_repeated_base_seed_changes_nothing(based: Database) -> None:
    again = seed_base(based)
    assert (again.groups, again.users, again.locations) == (0, 0, 0)


def test_group_created_after_seed_gets_next_id(based: Database) -> None:
    made = (
        "INSERT INTO aspen.groups (name, prefix, default_tree_location_id, auth0_org_id)"
        " SELECT 'New', 'NEW', id, 'group-new' FROM aspen.locations LIMIT 1 RETURNING id"
    )
    with based.begin() as session:
        assert session.scalar(sa.text(made)) == 4


def test_seed_refuses_database_with_other_groups(database: Database) -> None:
    with database.begin() as session:
        session.execute(sa.text("INSERT INTO aspen.locations (region) VALUES ('Asia')"))
        session.execute(
            sa.text(
                "INSERT INTO aspen.groups (name, prefix, default_tree_location_id, auth0_org_id)"
                " SELECT 'Theirs', 'THEIRS', id, 'group-theirs' FROM aspen.locations"
            )
        )
    with pytest.raises(ConflictError, match="has another group"):
        seed_base(database)
    assert _rows(database, "SELECT count(*) FROM aspen.users") == [(0,)]


def test_same_random_seed_generates_same_samples(based: Database) -> None:
    at_once = _grown(based, 40)
    with based.begin() as session:
        session.execute(sa.text("TRUNCATE aspen.samples, aspen.entities CASCADE"))
    assert _grown(based, 15, 25) == at_once
    with based.begin() as session:
        session.execute(sa.text("TRUNCATE aspen.samples, aspen.entities CASCADE"))
    seed_samples(based, 40, seed=1)
    assert _rows(based, _ALL_OF_A_SAMPLE)[0][0] != at_once


def test_further_samples_continue_numbering(seeded: Database) -> None:
    told: list[int] = []
    result = seed_samples(seeded, 5, progress=told.append)
    assert (result.first, result.last) == ("RCPHL-0000061", "RCPHL-0000065")
    assert sum(told) == result.samples_added == 5


def test_sample_numbering_is_separate_for_each_group(seeded: Database) -> None:
    assert seed_samples(seeded, 3, group=2).first == "BDPH-0000001"


def test_generated_identifiers_have_laboratory_format(seeded: Database) -> None:
    odd = _rows(
        seeded,
        "SELECT private_identifier, public_identifier, collection_date FROM aspen.samples"
        r" WHERE private_identifier !~ '^RCPHL-\d{7}$'"
        r" OR public_identifier !~ ('^hCoV-19/USA/CA-RCPHL-\d+/' || extract(year"
        " FROM collection_date) || '$')",
    )
    assert odd == []


def test_first_samples_have_whole_genomes_that_age(
    seeded: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aspen.local.seed.samples._WHOLE", 60)
    seed_samples(seeded, 2)
    found = _rows(
        seeded,
        "SELECT g.sequence, m.substitutions, s.collection_date - DATE '2019-12-26'"
        " FROM aspen.samples s JOIN aspen.uploaded_pathogen_genomes u ON u.sample_id = s.id"
        " JOIN aspen.pathogen_genomes g ON g.entity_id = u.pathogen_genome_id"
        " LEFT JOIN aspen.sample_mutations m ON m.sample_id = s.id ORDER BY s.id",
    )
    assert [len(str(sequence)) for sequence, *_ in found] == [29_903] * 60 + [1_000] * 2
    whole: list[Any] = found[:60]
    for sequence, named, age in whole:
        differing = [
            f"{base:c}{site}{letter}"
            for site, (base, letter) in enumerate(zip(reference(), sequence, strict=True), start=1)
            if letter not in (chr(base), "N")
        ]
        assert named is None or named == ",".join(differing)
        assert abs(len(differing) - age / 15) <= 8


def test_generated_site_counts_match_sequence(seeded: Database) -> None:
    odd = _rows(
        seeded,
        "SELECT entity_id FROM aspen.pathogen_genomes"
        " WHERE num_missing_alleles <> length(sequence) - length(replace(sequence, 'N', ''))"
        " OR num_unambiguous_sites + num_missing_alleles <> length(sequence)",
    )
    assert odd == []


def test_seeding_zero_samples_adds_nothing(seeded: Database) -> None:
    result = seed_samples(seeded, 0)
    assert (result.samples_added, result.first) == (0, None)


def test_seeding_samples_of_unknown_group_is_refused(seeded: Database) -> None:
    with pytest.raises(NotFoundError, match="Group 99 does not exist"):
        seed_samples(seeded, 1, group=99)


def test_seeding_negative_number_of_samples_is_refused(seeded: Database) -> None:
    with pytest.raises(BadInputError):
        seed_samples(seeded, -1)


def _grown(database: Database, *counts: int) -> object:
    for count in counts:
        seed_samples(database, count)
    return _rows(database, _ALL_OF_A_SAMPLE)[0][0]


def _rows(database: Database, statement: str) -> list[tuple[object, ...]]:
    with database.reading() as session:
        return [tuple(row) for row in session.execute(sa.text(statement))]
