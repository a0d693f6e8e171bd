"""Dumps: what they refuse, how they are verified, and how they are restored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from aspencli.copies import manifest
from tests.conftest import Server
from tests.copies.lab import (
    MARK,
    Lab,
    as_production,
    ask,
    built,
    connected,
    content,
    unpacked,
)

pytestmark = pytest.mark.unpooled("restores need a direct connection")
PASSPHRASE: dict[str, str | None] = {"ASPEN_DUMP_PASSPHRASE": "four random words here"}


def test_unmasked_dump_restores_every_row(lab: Lab) -> None:
    folder = lab.dump("dump", "--no-scrub")
    before = content(lab.source)
    (row,) = json.loads(_ok(lab, folder))
    assert row["outcome"] == "updated"
    assert content(lab.target) == before
    assert built(lab.target) == []


def _ok(lab: Lab, place: Path | str, *words: str) -> str:
    done = lab.restore(place, *words)
    assert done.code == 0, done.err
    return done.out


def test_manifest_describes_the_dump(lab: Lab) -> None:
    folder = lab.dump("dump", "--genomes", "drop")
    found = json.loads((folder / "manifest.json").read_text())
    assert (found["scrubbed"], found["genomes"], found["groups"]) == (True, "drop", 0)
    assert found["revision"] == "20230321_232555"
    assert len(found["rules"]) == 64
    (samples,) = [table for table in found["tables"] if table["name"] == "samples"]
    assert sum(part["rows"] for part in samples["parts"]) == 1_025
    assert all(len(part["sha256"]) == 64 for part in samples["parts"])


def test_verify_lists_files_and_finds_each_kind_of_damage(lab: Lab) -> None:
    folder = lab.dump()
    whole = lab.ok("db", "dumps", "verify", str(folder), "-o", "json")
    assert "The dump is intact" in whole.err
    assert all(row["problem"] is None for row in json.loads(whole.out))
    _flip(folder / "samples.0000.part")
    (folder / "users.0000.part").unlink()
    with (folder / "groups.0000.part").open("ab") as file:
        file.write(b"more")
    found = lab("db", "dumps", "verify", str(folder), "-o", "json")
    assert found.code == 1
    problems = {row["file"]: row["problem"] for row in json.loads(found.out) if row["problem"]}
    assert problems.keys() == {"samples.0000.part", "users.0000.part", "groups.0000.part"}
    assert problems["users.0000.part"] == "missing"


def _flip(file: Path, at: int | None = None) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2 if at is None else at] ^= 1
    file.write_bytes(bytes(data))


@pytest.mark.parametrize("file", ["manifest.json", "samples.0000.part", "roles.0000.part"])
def test_one_flipped_byte_is_found_before_anything_is_written(lab: Lab, file: str) -> None:
    folder = lab.dump()
    before = content(lab.target)
    _flip(folder / file)
    refused = lab.restore(folder)
    assert refused.code == 2
    assert "damaged; nothing was written" in refused.err
    assert (content(lab.target), built(lab.target)) == (before, [])


def test_dump_never_replaces_what_is_there(lab: Lab) -> None:
    folder = lab.dump()
    before = unpacked(folder)
    again = lab("--env", "source", "db", "dump", str(folder))
    assert again.code == 7
    assert "exists; nothing was written" in again.err
    assert unpacked(folder) == before


def test_production_is_never_a_destination(lab: Lab) -> None:
    folder = lab.dump()
    before = content(lab.source)
    env = as_production(lab) | {"ASPEN_DATABASE_URL_STAGING": None}
    for words in (
        ("--env", "prod", "db", "restore", str(folder), "--confirm", "prod"),
        ("db", "copy", "--from", "staging", "--to", "prod", "--confirm", "prod"),
        ("--env", "prod", "db", "setup", "--load-data", str(folder), "--confirm", "prod"),
    ):
        staging = lab.target if "copy" in words else None
        refused = lab(*words, env=env | {"ASPEN_DATABASE_URL_STAGING": staging})
        assert refused.code == 3, refused.err
        assert "production, which is never replaced" in refused.err
    assert content(lab.source) == before


def test_production_is_recognized_as_destination_under_another_name(lab: Lab) -> None:
    folder = lab.dump()
    lab.ok("--env", "prod", "db", "status", env=as_production(lab))
    lab.target = lab.source
    refused = lab.restore(folder)
    assert refused.code == 3
    assert "production, which is never replaced" in refused.err


def test_unmasked_dump_of_production_requires_name_reason_and_passphrase(lab: Lab) -> None:
    env = as_production(lab)
    words = ("--env", "prod", "db", "dump", str(lab.folder / "d"), "--no-scrub", "--no-input")
    refused = lab(*words, "--confirm", "prod", env=env | PASSPHRASE)
    assert (refused.code, "A reason is required" in refused.err) == (3, True)
    refused = lab(*words, "--reason", "T-1", "--confirm", "prod", env=env)
    assert (refused.code, "A passphrase is required" in refused.err) == (4, True)
    refused = lab(*words, "--reason", "T-1", "--yes", env=env | PASSPHRASE)
    assert (refused.code, "--confirm prod" in refused.err) == (3, True)
    short: dict[str, str | None] = {"ASPEN_DUMP_PASSPHRASE": "short"}
    refused = lab(*words, "--reason", "T-1", "--confirm", "prod", env=env | short)
    assert (refused.code, "too short" in refused.err) == (2, True)
    assert not (lab.folder / "d").exists()

    lab.ok(*words, "--reason", "T-1", "--confirm", "prod", env=env | PASSPHRASE)
    assert MARK.encode() not in unpacked(lab.folder / "d")  # it is encrypted
    assert {file.stat().st_mode & 0o777 for file in (lab.folder / "d").iterdir()} == {0o600}
    (run,) = json.loads(lab.ok("history", "list", "-o", "json", "--limit", "1").out)
    assert (run["command"], run["target"], run["outcome"]) == ("db dump", "prod", "written")
    shown = json.loads(lab.ok("history", "show", run["run"], "-o", "json").out)
    assert "T-1" in json.dumps(shown)


def test_production_is_copied_only_scrubbed(lab: Lab) -> None:
    words = ("db", "copy", "--from", "prod", "--to", "staging", "--confirm", "staging")
    refused = lab(*words, "--no-scrub", env=as_production(lab))
    assert refused.code == 3
    assert "only copied scrubbed" in refused.err


def test_encrypted_dump_restores_with_its_passphrase_only(lab: Lab) -> None:
    folder = lab.folder / "dump"
    lab.ok("--env", "source", "db", "dump", str(folder), "--no-scrub", "--encrypt", env=PASSPHRASE)
    words = ("--env", "staging", "db", "restore", str(folder), "--confirm", "staging")
    before = content(lab.target)
    wrong = lab(*words, env={"ASPEN_DUMP_PASSPHRASE": "four other words here"})
    assert (wrong.code, "passphrase is wrong" in wrong.err) == (4, True)
    none = lab(*words, "--no-input")
    assert (none.code, "ASPEN_DUMP_PASSPHRASE" in none.err) == (4, True)
    assert content(lab.target) == before
    lab.ok(*words, env=PASSPHRASE)
    assert content(lab.target) == content(lab.source)


def test_same_database_is_refused_as_source_and_destination(lab: Lab) -> None:
    lab.target = lab.source
    refused = lab("db", "copy", "--from", "source", "--to", "staging", "--confirm", "staging")
    assert refused.code == 7
    assert "the same database" in refused.err


def test_other_sessions_stop_a_restore_unless_forced(lab: Lab) -> None:
    folder = lab.dump()
    before = content(lab.target)
    with connected(lab.target) as cursor:
        cursor.execute("SELECT 1")
        refused = lab.restore(folder)
        assert refused.code == 7
        assert "in use by 1 other session; nothing was written" in refused.err
        assert content(lab.target) == before
        _ok(lab, folder, "--force")
    assert content(lab.target) != before


def test_owner_settings_and_privileges_are_carried_over(lab: Lab) -> None:
    name = make_url(lab.target).database
    role = f"reader_{name}"[:60]
    with connected(lab.target) as cursor:
        cursor.execute(f'CREATE ROLE "{role}"')
        cursor.execute(f'GRANT USAGE ON SCHEMA aspen TO "{role}"')
        cursor.execute(f'GRANT SELECT ON aspen.samples TO "{role}"')
        cursor.execute(f"ALTER DATABASE \"{name}\" SET work_mem = '7MB'")
        cursor.execute(f'ALTER DATABASE "{name}" SET search_path = aspen, public')
    folder = lab.dump()
    done = lab.restore(folder)
    assert "could not be carried over" not in done.err
    assert ask(lab.target, "SHOW work_mem") == "7MB"
    assert ask(lab.target, "SHOW search_path") == "aspen, public"
    assert ask(lab.target, f"SELECT has_table_privilege('{role}', 'aspen.samples', 'SELECT')")
    with connected(lab.target) as cursor:
        cursor.execute(f'DROP OWNED BY "{role}"')
        cursor.execute(f'DROP ROLE "{role}"')


def test_sequences_continue_behind_the_restored_rows(lab: Lab) -> None:
    last = ask(lab.source, "SELECT nextval('aspen.samples_id_seq')")
    _ok(lab, lab.dump())
    assert ask(lab.target, "SELECT nextval('aspen.samples_id_seq')") == last + 1


def test_dump_of_an_unknown_revision_is_refused(lab: Lab) -> None:
    with connected(lab.source) as cursor:
        cursor.execute("UPDATE public.alembic_version SET version_num = '29990101_000000'")
    refused = lab("--env", "source", "db", "dump", str(lab.folder / "dump"))
    assert refused.code == 7
    assert "does not know; nothing was written" in refused.err


def test_rows_that_break_a_constraint_change_nothing(lab: Lab) -> None:
    folder = lab.dump()
    document = json.loads((folder / "manifest.json").read_text())
    document["tables"] = [one for one in document["tables"] if one["name"] != "users"]
    for key in ("sha256", "format", "version"):
        document.pop(key)
    document["tables"] = tuple(
        manifest.Table(
            one["name"],
            tuple(one["columns"]),
            tuple(manifest.Part(**part) for part in one["parts"]),
        )
        for one in document["tables"]
    )
    (folder / "manifest.json").write_bytes(manifest.Manifest(**document).encode())
    before = content(lab.target)
    refused = lab.restore(folder)
    assert refused.code == 2
    assert "break a rule of the schema" in refused.err
    assert (content(lab.target), built(lab.target)) == (before, [])


def test_setup_creates_a_database_with_data_once(lab: Lab, postgres: Server) -> None:
    folder = lab.dump()
    name = f"{make_url(lab.target).database}_new"
    lab.target = make_url(lab.target).set(database=name).render_as_string(False)
    words = ("--env", "staging", "db", "setup", "--load-data", str(folder), "--confirm", "staging")
    try:
        lab.ok(*words)
        assert ask(lab.target, "SELECT count(*) FROM aspen.samples") == 1_025
        again = lab(*words)
        assert again.code == 7
        assert "already has a schema" in again.err
    finally:
        postgres.drop(name)


def test_full_folder_leaves_nothing_behind(lab: Lab, tmp_path: Path) -> None:
    place = tmp_path / "file"
    place.write_text("")
    refused = lab("--env", "source", "db", "dump", str(place / "dump"))
    assert refused.code == 1
    assert "Cannot write the dump" in refused.err
