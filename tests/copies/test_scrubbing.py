"""Scrubbed copies: no canary anywhere, equal values equal, and a database that works."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from tests.copies.lab import (
    CONFIRMED,
    MARK,
    PLANTED,
    Lab,
    as_production,
    ask,
    connected,
    opened,
    plant,
    text_of,
    unpacked,
)

pytestmark = pytest.mark.unpooled("restores need a direct connection")
COPY = ("db", "copy", "--from", "source", "--to", "staging", "--scrub", *CONFIRMED)


def test_thousands_of_canaries_are_planted_in_many_columns(lab: Lab) -> None:
    assert plant(lab.target) > 0  # every expression works on any rows
    assert text_of(lab.source).count(MARK) >= 5_000
    assert sum(map(len, PLANTED.values())) >= 25


def test_dump_has_no_canary_in_any_file_or_name(lab: Lab) -> None:
    folder = lab.dump()
    assert MARK.encode() not in unpacked(folder)
    assert not list(lab.folder.rglob(f"*{MARK}*"))
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o600}


def test_copy_to_another_server_leaves_no_canary_in_its_files_or_ours(
    lab: Lab, other_server: str, aspen_home: Path
) -> None:
    lab.target = make_url(other_server).set(database="copied").render_as_string(False)
    temporary = lab.folder / "temporary"
    temporary.mkdir()
    done = lab.ok(*COPY, env={"TMPDIR": str(temporary)})
    (row,) = json.loads(done.out)
    assert (row["outcome"], row["scrubbed"]) == ("created", True)
    assert MARK not in text_of(lab.target)
    assert MARK not in done.out + done.err
    with connected(other_server) as cursor:
        cursor.execute("CHECKPOINT")
        cursor.execute("SHOW data_directory")
        data = Path(cursor.fetchone()[0])
    folders = (data, aspen_home, temporary)
    found = [file for folder in folders for file in _files(folder) if _has_mark(file)]
    assert found == []
    objects = lab.storage.content()
    assert len(objects) == row["tree_files"] > 1
    assert not [key for key, body in objects.items() if MARK in key or MARK.encode() in body]
    check = lab.ok("--env", "staging", "db", "check")
    assert "match" in check.err


def _files(folder: Path) -> list[Path]:
    return [Path(at) / name for at, _, names in os.walk(folder) for name in names]


def _has_mark(file: Path) -> bool:
    try:
        return MARK.encode() in file.read_bytes()
    except OSError:  # a socket, or removed in the meantime
        return False


def test_copies_go_both_ways_between_two_versions_of_postgresql(
    lab: Lab, other_server: str
) -> None:
    mine = lab.target
    lab.target = make_url(other_server).set(database="there").render_as_string(False)
    lab.ok(*COPY)
    there = ask(lab.target, "SELECT count(*) FROM aspen.samples")
    lab.source, lab.target = lab.target, mine
    lab.ok(*COPY)
    assert ask(mine, "SELECT count(*) FROM aspen.samples") == there == 1_025
    assert ask(mine, "SELECT count(*) FROM pg_constraint WHERE NOT convalidated") == 0


def test_equal_values_stay_equal_in_columns_and_in_json(lab: Lab) -> None:
    with connected(lab.source) as cursor:
        cursor.execute("UPDATE aspen.groups SET submitting_lab = name")
        cursor.execute(
            "UPDATE aspen.samples SET sample_collected_by = "
            "(SELECT name FROM aspen.groups g WHERE g.id = submitting_group_id)"
        )
        cursor.execute(
            "UPDATE aspen.phylo_runs SET gisaid_ids = (SELECT jsonb_agg(public_identifier)"
            " FROM (SELECT public_identifier FROM aspen.samples LIMIT 3) s)"
        )
        cursor.execute(
            "UPDATE aspen.samples SET original_submission = json_build_object("
            "'private_identifier', private_identifier,"
            " 'sample', json_build_object('authors', authors))"
        )
    lab.ok(*COPY)
    assert ask(lab.target, "SELECT bool_and(submitting_lab = name) FROM aspen.groups")
    same = (
        "SELECT bool_and(original_submission ->> 'private_identifier' = private_identifier"
        " AND original_submission::jsonb -> 'sample' -> 'authors' = authors"
        " AND sample_collected_by = (SELECT name FROM aspen.groups g"
        " WHERE g.id = submitting_group_id)) FROM aspen.samples"
    )
    assert ask(lab.target, same)
    names = (
        "SELECT count(*) FROM aspen.phylo_runs, jsonb_array_elements_text(gisaid_ids) AS n (id)"
        " WHERE n.id IN (SELECT public_identifier FROM aspen.samples)"
    )
    assert ask(lab.target, names) == 3 * ask(lab.target, "SELECT count(*) FROM aspen.phylo_runs")
    assert ask(
        lab.target,
        "SELECT bool_and(public_identifier ~ '^hCoV-19/[0-9a-f]{20}$') FROM aspen.samples",
    )


def test_every_copy_has_a_key_of_its_own(lab: Lab) -> None:
    names = "SELECT string_agg(name, ',' ORDER BY id) FROM aspen.users"
    lab.ok(*COPY)
    first = ask(lab.target, names)
    lab.ok(*COPY)
    assert ask(lab.target, names) != first


def test_dates_move_by_one_constant(lab: Lab) -> None:
    before = "SELECT array_agg(collection_date ORDER BY id) FROM aspen.samples"
    old = ask(lab.source, before)
    lab.ok(*COPY)
    moved = {(new - was).days for was, new in zip(old, ask(lab.target, before), strict=True)}
    assert len(moved) == 1
    assert -104 < moved.pop() < -13


def test_json_without_personal_data_in_known_keys_keeps_them(lab: Lab) -> None:
    with connected(lab.source) as cursor:
        cursor.execute(
            "UPDATE aspen.sample_lineages SET raw_lineage_output ="
            " jsonb_build_object('scorpio_call', 'Omicron', 'taxon', 'me', 'unheard_of', 1)"
        )
    lab.ok(*COPY)
    found = ask(lab.target, "SELECT raw_lineage_output FROM aspen.sample_lineages LIMIT 1")
    assert found == {"scorpio_call": "Omicron"}


def test_odd_json_is_masked_without_an_error(lab: Lab) -> None:
    with connected(lab.source) as cursor:
        for number, odd in enumerate(
            (
                '"text"',
                "7",
                "null",
                "[]",
                '[["nested"], {"a": 1}, null, true, 3]',
                '{"sample": 1}',
                '{"collection_date": "2021-02-31", "authors": "one"}',
                '{"collection_date": "soon"}',
                '{"private_identifier": ["a", "b"], "sample": {"authors": {"x": 1}}}',
            ),
            start=1,
        ):
            cursor.execute(
                "UPDATE aspen.samples SET original_submission = %s, authors = %s WHERE id ="
                " (SELECT id FROM aspen.samples ORDER BY id OFFSET %s LIMIT 1)",
                (odd, odd, number),
            )
    lab.ok(*COPY)
    assert "nested" not in text_of(lab.target)


def test_person_who_asks_can_sign_in_to_the_copy(lab: Lab) -> None:
    with connected(lab.source) as cursor:
        cursor.execute(
            "UPDATE aspen.users SET email = 'Me@example.org', name = 'Me', auth0_user_id ="
            " 'auth0|me' WHERE id = (SELECT min(user_id) FROM aspen.user_roles)"
        )
    lab.ok(*COPY, "--as", "me@EXAMPLE.org")
    kept = "SELECT count(*) FROM aspen.users WHERE email = 'Me@example.org' AND name = 'Me'"
    assert ask(lab.target, f"{kept} AND auth0_user_id = 'auth0|me'") == 1
    assert MARK not in text_of(lab.target)
    asked = ("db", "profile", "--request", "GET /v2/users/me", "--as", "Me@example.org")
    served = lab.ok("--env", "staging", *asked)
    assert "200" in served.out + served.err
    refused = lab(*COPY, "--as", "stranger@example.org")
    assert refused.code == 6
    assert "No user has the e-mail address stranger@example.org" in refused.err


@pytest.mark.parametrize("genomes", ["keep", "blank", "drop"])
def test_genomes_are_kept_blanked_or_dropped(lab: Lab, genomes: str) -> None:
    query = "SELECT count(*), sum(length(sequence)), count(*) FILTER (WHERE sequence ~ '[ACGT]')"
    with connected(lab.source) as cursor:
        cursor.execute(f"{query} FROM aspen.pathogen_genomes")
        count, length, _ = cursor.fetchone()
    lab.ok(*COPY, "--genomes", genomes)
    with connected(lab.target) as cursor:
        cursor.execute(f"{query} FROM aspen.pathogen_genomes")
        found = cursor.fetchone()
    assert count > 0
    assert found[0] == (0 if genomes == "drop" else count)
    assert found[2] == (count if genomes == "keep" else 0)
    if genomes == "blank":
        assert found[1] == length
    assert "match" in lab.ok("--env", "staging", "db", "check").err


def test_chosen_groups_come_with_everything_they_refer_to(lab: Lab) -> None:
    prefix = ask(lab.source, "SELECT prefix FROM aspen.groups WHERE id = 2")
    lab.ok(*COPY, "--groups", prefix)
    assert ask(lab.target, "SELECT array_agg(id) FROM aspen.groups") == [2]
    assert ask(lab.target, "SELECT array_agg(DISTINCT submitting_group_id) FROM aspen.samples") == [
        2
    ]
    assert ask(lab.target, "SELECT count(*) FROM aspen.samples") == 20
    members = ask(
        lab.source, "SELECT count(DISTINCT user_id) FROM aspen.user_roles WHERE group_id = 2"
    )
    assert ask(lab.target, "SELECT count(*) FROM aspen.users") >= members
    assert ask(lab.target, "SELECT count(*) FROM aspen.locations") == ask(
        lab.source, "SELECT count(*) FROM aspen.locations"
    )
    unknown = lab(*COPY, "--groups", "NOSUCH")
    assert unknown.code == 6
    assert "No such group: 'NOSUCH'" in unknown.err


def test_column_without_a_rule_stops_the_dump_and_the_copy(lab: Lab) -> None:
    with connected(lab.source) as cursor:
        cursor.execute("ALTER TABLE aspen.samples ADD COLUMN patient_name text")
    for words in (COPY, ("--env", "source", "db", "dump", str(lab.folder / "dump"))):
        refused = lab(*words)
        assert refused.code == 3
        assert "1 column of this database has no masking rule; nothing was written" in refused.err
        assert "samples.patient_name" in refused.err
    assert not (lab.folder / "dump").exists()


def test_key_is_in_no_statement_and_in_no_log(lab: Lab, other_server: str) -> None:
    with connected(other_server) as cursor:
        cursor.execute("ALTER SYSTEM SET log_statement = 'all'")
        cursor.execute("SELECT pg_reload_conf()")
    try:
        lab.target = make_url(other_server).set(database="logged").render_as_string(False)
        lab.ok(*COPY)
        lab.source = lab.target
        lab.ok("--env", "source", "db", "dump", str(lab.folder / "dump"))
    finally:
        with connected(other_server) as cursor:
            cursor.execute("ALTER SYSTEM RESET log_statement")
            cursor.execute("SELECT pg_reload_conf()")
            cursor.execute("SHOW data_directory")
            data = Path(cursor.fetchone()[0])
    logs = [file for file in _files(data.parent) if file.suffix in {".log", ".csv"}]
    text = "\n".join(file.read_text(errors="replace") for file in logs)
    assert "COPY (SELECT" in text
    assert not re.search(r"\b[0-9a-f]{64}\b", text)


def test_sessions_that_read_production_are_read_only(lab: Lab) -> None:
    folder = lab.folder / "prod-dump"
    done = lab("--env", "prod", "db", "dump", str(folder), env=as_production(lab))
    assert done.code == 0, done.err  # scrubbed, so no confirmation is needed
    assert MARK.encode() not in unpacked(folder)


def test_copy_holds_all_constraints(lab: Lab) -> None:
    lab.ok(*COPY)
    database = opened(lab.target)
    with connected(lab.target) as cursor:
        cursor.execute("INSERT INTO aspen.locations (region) VALUES ('new') RETURNING id")
        (new,) = cursor.fetchone()
        cursor.execute("SELECT count(*) FROM aspen.locations WHERE id >= %s", (new,))
        assert cursor.fetchone()[0] == 1
    database.dispose()
