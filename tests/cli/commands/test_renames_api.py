"""Renaming through the API: the same plan, messages, files, and codes as in the database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aspen.database.engine import Database
from tests.cli.commands.api_lab import ApiLab
from tests.cli.commands.ending import Ended
from tests.cli.commands.renames_lab import H, Renames, tangled, write_mapping

COMMAND = ("samples", "update-public-ids", "--group-id", "1")


@pytest.fixture
def renames(api_lab: ApiLab) -> Iterator[Renames]:
    url = api_lab.service.database.url
    database = Database(url, application_name="tests", writable=True)
    yield Renames(database)
    database.dispose()


def update(lab: ApiLab, mapping: Path, *options: str, via: str = "api", **more: Any) -> Ended:
    return lab(*COMMAND, "-f", str(mapping), "--via", via, *options, **more)


def test_rename_of_swaps_and_cycles_changes_only_public_identifiers(
    api_lab: ApiLab, renames: Renames, tmp_path: Path
) -> None:
    renames.give_sequencing_dates()
    names, rest = renames.names(), renames.rest()
    wanted = tangled(names, len(names))
    mapping = write_mapping(tmp_path / "ids.csv", wanted)
    undo = tmp_path / "undo.csv"
    ended = update(api_lab, mapping, "--yes", "--undo-file", str(undo), "-o", "json")
    assert ended.code == 0, ended.err
    assert renames.names() == names | wanted
    assert renames.rest() == rest
    (result,) = ended.json
    changed = sum(names[key] != name for key, name in wanted.items())
    assert (result["rows"], result["changed"]) == (len(wanted), changed)
    again = update(api_lab, mapping, "--yes")
    assert (again.code, "Nothing to change." in again.err) == (0, True)

    back = api_lab("samples", "undo", str(undo), "--yes", "-o", "json")
    assert back.code == 0, back.err
    assert renames.names() == names
    assert renames.rest() == rest
    shown = api_lab("history", "show", result["run"], "-o", "json").json[0]
    assert (shown["via"], shown["outcome"], len(shown["undone_by"])) == ("api", "written", 1)


@pytest.mark.parametrize("backend", ["db", "api"])
def test_each_backend_undoes_renames_of_the_other(
    api_lab: ApiLab, renames: Renames, tmp_path: Path, backend: str
) -> None:
    names = renames.names()
    mapping = write_mapping(tmp_path / "ids.csv", tangled(names, 100))
    other = {"db": "api", "api": "db"}[backend]
    undo = tmp_path / "undo.csv"
    assert update(api_lab, mapping, "--yes", "--undo-file", str(undo), via=backend).code == 0
    files = [undo.read_text()]
    ended = api_lab("samples", "undo", str(undo), "--yes", "--via", other)
    assert ended.code == 0, ended.err
    assert renames.names() == names
    undo.unlink()
    assert update(api_lab, mapping, "--yes", "--undo-file", str(undo), via=other).code == 0
    files.append(undo.read_text())
    assert files[0].splitlines()[1:] == files[1].splitlines()[1:]


def test_plans_problems_and_reports_match_between_backends(
    api_lab: ApiLab, renames: Renames, tmp_path: Path
) -> None:
    names = renames.names()
    keys = list(names)
    good = {key: f"n-{key}" for key in keys[:3]}
    cases = {
        "good": good,
        "swap": {keys[0]: names[keys[1]], keys[1]: names[keys[0]], keys[2]: names[keys[2]]},
        "held": {keys[0]: names[keys[9]], keys[1]: names[keys[0]]},
        "unknown": {**good, "no such": "x", 'a "quoted\\ é': names[keys[5]]},
        "same name twice": {keys[0]: "x", keys[1]: "x", keys[2]: names[keys[3]], keys[3]: "x"},
        "name of one that stays": {keys[0]: names[keys[1]], keys[1]: names[keys[1]]},
        "long": {keys[0]: "x" * 129},
    }
    for name, wanted in cases.items():
        mapping = write_mapping(tmp_path / f"{name}.csv", wanted)
        told = []
        for backend in ("db", "api"):
            report = tmp_path / f"{name}-{backend}.csv"
            ended = update(
                api_lab, mapping, "--dry-run", "--report", str(report), "-o", "json", via=backend
            )
            err = ended.err.replace(str(report), "REPORT")
            told.append((ended.code, ended.out, err, report.read_text()))
        assert told[0] == told[1], name
    repeated = tmp_path / "repeated.csv"
    repeated.write_text(f"{H}\n{keys[0]},a\n{keys[1]},b\n{keys[0]},c\n")
    by_db, by_api = (update(api_lab, repeated, "--yes", via=backend) for backend in ("db", "api"))
    assert by_db == by_api
    assert by_db.code == 2
    assert renames.names() == names


def test_undo_of_samples_changed_since_matches_between_backends(
    api_lab: ApiLab, renames: Renames, tmp_path: Path
) -> None:
    names = renames.names()
    wanted = tangled(names, 60)
    undo = tmp_path / "undo.csv"
    mapping = write_mapping(tmp_path / "ids.csv", wanted)
    assert update(api_lab, mapping, "--yes", "--undo-file", str(undo)).code == 0
    changed = [key for key in wanted if wanted[key] != names[key]][:40:8]
    renames.set_names({key: f"since-{key}" for key in changed})
    for options in ((), ("--force",)):
        told = []
        for backend in ("db", "api"):
            report = tmp_path / f"{backend}.csv"
            ended = api_lab(
                *("samples", "undo", str(undo), "--dry-run", "--via", backend, "-o", "json"),
                *("--report", str(report), *options),
            )
            err = ended.err.replace(str(report), "REPORT")
            told.append((ended.code, ended.out, err, report.read_text()))
        assert told[0] == told[1]
    ended = api_lab("samples", "undo", str(undo), "--yes", "--via", "api")
    assert ended.code == 7
    ended = api_lab("samples", "undo", str(undo), "--yes", "--force", "--via", "api")
    assert ended.code == 0, ended.err
    assert renames.names() == names


def test_rename_without_write_permission_exits_with_4(
    api_lab: ApiLab, renames: Renames, tmp_path: Path
) -> None:
    mapping = write_mapping(tmp_path / "ids.csv", {key: f"n-{key}" for key in renames.names()})
    for who in ("viewer", "g2admin", "sysadmin"):
        for flag in ("--yes", "--dry-run"):
            ended = update(api_lab, mapping, flag, who=who)
            assert (ended.code, ended.out) == (4, ""), (who, ended.err)
    ended = api_lab("samples", "update-public-ids", "--group-id", "999", "-f", str(mapping))
    assert ended.code == 6  # the database knows that there is no such group


def test_history_records_backend(api_lab: ApiLab, renames: Renames, tmp_path: Path) -> None:
    mapping = write_mapping(tmp_path / "ids.csv", {next(iter(renames.names())): "n"})
    for backend in ("db", "api"):
        update(api_lab, mapping, "--yes", via=backend)
    runs = api_lab("history", "list", "-o", "json").json
    shown = [api_lab("history", "show", run["run"], "-o", "json").json[0] for run in runs]
    assert [run["via"] for run in shown] == ["api", "db"]
