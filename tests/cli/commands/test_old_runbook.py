"""Old spellings of commands: each one in the guide's table is run."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import pytest

from tests.api.conftest import Api, Cloud
from tests.cli.commands.api_lab import ApiLab
from tests.cli.commands.ending import Ended
from tests.cli.commands.test_downloads import tree_of

ROOT = Path(__file__).parents[3]
GUIDE = ROOT / "docs/guides/old-runbook.md"
TOOL = ("aspencli.py", "aspen-cli")
CONTRACT = Path(__file__).parents[4] / "shared" / "contract" / "old-cli.md"
_NO_ROW = {"--stack"}  # rdev cannot be reached from here
_IDS = count(500)  # each row that names a sample by ID gets a different one
CONSOLE = "session = engine.make_session()\nprint(session.query(User).count())\n"


class Spelling(NamedTuple):
    """A row of the table."""

    old: str
    code: int
    consent: str | None  # the options that make it exit with 0

    def __str__(self) -> str:
        return self.old


def _table() -> Iterator[Spelling]:
    lines = GUIDE.read_text(encoding="utf-8").split("ends with |\n|---|---|---|\n")[1].splitlines()
    for line in lines:
        if not line.startswith("|"):
            return
        old, _here, ends = (cell.strip() for cell in line.strip("|").split("|"))
        found = re.fullmatch(r"(?:0 with `(?P<consent>.+)`, else )?(?P<code>\d+)", ends or "0")
        assert found, line
        yield Spelling(old.strip("`"), int(found["code"]), found["consent"])


SPELLINGS = list(_table())
ALL = [each for each in SPELLINGS if each.old.startswith(TOOL)]


@pytest.mark.skipif(not CONTRACT.is_file(), reason="the old tool's interface is not here")
def test_guide_lists_every_command_and_option_of_old_tool() -> None:
    command, wanted = "", set[tuple[str, str]]()
    for line in CONTRACT.read_text(encoding="utf-8").splitlines():
        if line.startswith("##"):
            command = line.strip("# `").replace("aspencli.py", "")
        elif line.startswith("- option "):
            names = line.removeprefix("- option ").partition(";")[0].split(", ")
            wanted |= {(command, name) for name in names if name.startswith("-")}
        if " " in command:
            wanted.add((command, command.split()[1]))
    rows = [shlex.split(each.old) for each in ALL]
    missing = {
        (command, name)
        for command, name in wanted
        if name not in _NO_ROW
        and not any(name in row and set(command.split()) <= set(row) for row in rows)
    }
    assert not missing


@pytest.fixture
def old_lab(managed_service: Api, aws: Cloud, lab_of: Callable[[Api], ApiLab]) -> ApiLab:
    return lab_of(managed_service)


@pytest.mark.parametrize("spelling", ALL, ids=str)
def test_old_command_line_still_works(
    old_lab: ApiLab, spelling: Spelling, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = _filled(spelling.old, old_lab, tmp_path)
    ended = _run(old_lab, words)
    assert ended.code == spelling.code, ended.err
    assert "No such" not in ended.err
    if spelling.consent:
        ended = _run(old_lab, [*words, *shlex.split(spelling.consent)])
        assert ended.code == 0, ended.err
    if ended.code == 0:
        assert ended.out


def _run(lab: ApiLab, words: list[str]) -> Ended:
    if "interact" in words:
        ended = lab.run(*words, who="sysmember", stdin=CONSOLE)
        assert re.search(r"^\d+$", ended.out, re.MULTILINE)
        assert ("Start Query" in ended.err + ended.out) == ("--profile" in words)
        return ended
    return lab(*words, who="sysmember")


def _filled(old: str, lab: ApiLab, folder: Path) -> list[str]:
    """Return the words after the tool's name, with a value for each word in capitals."""
    mapping = folder / "mapping.csv"
    mapping.write_text(
        "private_identifier,public_identifier\nRCPHL-0000003,hCoV-19/USA/CA-RENAMED/2020\n"
    )
    unique = uuid4().hex[:8]
    values = {
        "GROUP": "1",
        "MAPPING": str(mapping),
        "NEW": f"NEW-{unique}",
        "ALSO-NEW": f"ALSO-NEW-{unique}",
        "LETTERS": "ACGT" * 300,
        "ID": str(next(_IDS)),
        "SAMPLE": "RCPHL-0000002",
        "TREE": tree_of(lab),
        "RUN": _ended_run(lab),
        "NAME": f"Somebody {unique}",
        "PREFIX": unique,
        "ADDRESS": f"{unique}@example.org",
        "ACCOUNT": f"auth0|{unique}",
        "LOCATION": "1",
        "API": lab.service.url,
        "REGION": "north america",
        "COUNTRY": "usa",
        "DIVISION": "california",
        "PLACE": "san fransisco",
        "TEXT": "a text",
    }
    words = shlex.split(old)[1:]
    unknown = {word for word in words if word.isupper()} - set(values)
    assert unknown <= {"SC2", "GISAID", "OVERVIEW", "TARGETED", "NON_CONTEXTUALIZED"}
    return [values.get(word, word) for word in words]


def _ended_run(lab: ApiLab) -> str:
    rows = lab("phylo-runs", "list", "--group", "1", "-o", "json", "--via", "db").json
    return str([row["id"] for row in rows if row["workflow_status"] != "STARTED"][-1])


@pytest.mark.parametrize(
    "spelling", [each for each in SPELLINGS if each.old.startswith("make ")], ids=str
)
def test_make_targets_in_guide_exist(spelling: Spelling) -> None:
    """Most of them act on this machine; other tests cover what they would run."""
    done = subprocess.run(
        [*shlex.split(spelling.old), "--dry-run", "--no-print-directory"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_guide_rows_are_commands_or_make_targets() -> None:
    known = (*TOOL, "make")
    assert [each.old for each in SPELLINGS if each.old.split()[0] not in known] == []
    assert len(SPELLINGS) > 40
