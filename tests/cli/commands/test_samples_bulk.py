from __future__ import annotations

import csv
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from aspencli.cli.main import run
from tests.cli.commands.mapping_cases import CASES, Case, H
from tests.cli.commands.mapping_lab import SAMPLES, Ended, Lab

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_FEW = 1_000
Update = Callable[..., Ended]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_mapping_has_expected_exit_code_writes_and_messages(
    case: Case, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    if os.geteuid() == 0 and not case.as_root:
        pytest.skip("root may read everything")
    if len(case.samples) > _FEW:  # every later test would have to compare them
        lab = Lab(request.getfixturevalue("migrated_db"), tmp_path)
    else:
        lab = request.getfixturevalue("lab")
    ended = case.run(lab, tmp_path)
    assert ended.code == case.code, ended.err
    assert ended.written == case.writes
    for words in case.says:
        assert words in ended.err
    assert not _CONTROL.search(ended.err)
    if case.code:
        assert ended.out == ""
        assert re.search("^(→|  )", ended.err, re.MULTILINE), "no word of what to do next"


@pytest.fixture
def group(lab: Lab) -> int:
    return lab.group()


@pytest.fixture
def mapping(tmp_path: Path) -> Path:
    path = tmp_path / "ids.csv"
    path.write_text(f"{H}\nL-1,P-2\nL-2,P-1\nL-3,P-3\n=1+1,N-1\n")
    return path


WRITES = {"L-1": "P-2", "L-2": "P-1", "=1+1": "N-1"}


@pytest.fixture
def update(
    lab: Lab,
    group: int,
    mapping: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Update:
    """Return a function that runs the command in this process, without a terminal."""
    for name, value in lab.environment().items():
        monkeypatch.setenv(name, value)

    def call(*options: str, file: Path = mapping, to: int = group) -> Ended:
        def run_here(*words: str, stdin: None) -> tuple[int, str, str]:
            lab.use(monkeypatch, words)
            capsys.readouterr()
            return run(words), *capsys.readouterr()

        monkeypatch.setattr(lab, "run", run_here)
        return lab.update(to, str(file), *options)

    return call


def undo_files(lab: Lab) -> list[Path]:
    return sorted((lab.folder / "home" / "state" / "undo").glob("*"))


# Permissions


def test_old_spelling_with_org_option_still_works(lab: Lab, group: int, mapping: Path) -> None:
    ended = lab.watch(
        group,
        [
            *("sample", "update_public_ids", "--org", str(group), "--yes"),
            *("--private-to-public-id-mapping", str(mapping)),
        ],
    )
    assert (ended.code, ended.written) == (0, WRITES)


def test_missing_unknown_or_invalid_group_is_refused(lab: Lab, mapping: Path) -> None:
    words = ["samples", "update-public-ids", "-f", str(mapping), "--yes"]
    code, _out, err = lab.run(*words)
    assert code == 2
    assert "No group was given" in err
    code, _out, err = lab.run(*words, "--group-id", "999999999999999999999")
    assert code == 6
    assert "No such group: 999999999999999999999" in err
    code, _out, err = lab.run(*words, "--org", "ADPH")
    assert code == 2
    assert "Invalid group id: 'ADPH' (from flag --org)" in err


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        ([], 3, "--yes"),
        (["--no-input"], 3, "--yes"),
        (["--yes"], 0, ""),
        (["--env", "prod", "--yes"], 3, "--confirm prod"),
        (["--env", "prod", "--confirm", "staging"], 3, "does not match the target"),
        (["--env", "prod", "--confirm", "prod"], 0, ""),
    ],
    ids=["nothing", "no input", "yes", "yes on prod", "wrong name", "name"],
)
def test_write_off_terminal_requires_yes_or_confirm(
    options: list[str], code: int, says: str, update: Update
) -> None:
    ended = update(*options)
    assert (ended.code, ended.written) == (code, {} if code else WRITES)
    assert says in ended.err
    assert ("nothing was written" in ended.err) == (code == 3)


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        ([], 3, "add --yes"),
        (["--yes"], 0, ""),
        (["--dry-run"], 0, ""),
        (["--env", "prod", "--yes"], 3, "add --confirm prod"),
        (["--env", "prod", "--confirm", "prod"], 0, ""),
    ],
    ids=["nothing", "yes", "dry run", "yes on prod", "name"],
)
def test_mapping_from_stdin_requires_yes_or_confirm(
    options: list[str], code: int, says: str, lab: Lab, group: int, mapping: Path
) -> None:
    ended = lab.update(group, "-", *options, stdin=mapping.read_bytes())
    writes = {} if code or "--dry-run" in options else WRITES
    assert (ended.code, ended.written) == (code, writes)
    assert says in ended.err
    assert ("standard input is the mapping" in ended.err) == (code == 3)


def test_closed_stdin_exits_with_2(lab: Lab, group: int) -> None:
    words = ["samples", "update-public-ids", "--group-id", str(group), "-f", "-", "--yes"]
    command = shlex.join([sys.executable, "-m", "aspencli", *words])
    done = subprocess.run(
        f"{command} <&-", shell=True, env=lab.environment(), capture_output=True, check=False
    )
    assert (done.returncode, b"Standard input is closed" in done.stderr) == (2, True)


# Output


def test_dry_run_shows_whole_plan_and_writes_nothing(lab: Lab, update: Update) -> None:
    before = undo_files(lab)
    ended = update("--dry-run", "--output", "jsonl")
    assert (ended.code, ended.written) == (0, {})
    assert [json.loads(line) for line in ended.out.splitlines()] == [
        {
            "line": line,
            "private_identifier": lab_id,
            "public_identifier_before": SAMPLES[lab_id],
            "public_identifier_after": after,
            "action": action,
            "outcome": action,
        }
        for line, lab_id, after, action in [
            (2, "L-1", "P-2", "update"),
            (3, "L-2", "P-1", "update"),
            (4, "L-3", "P-3", "unchanged"),
            (5, "=1+1", "N-1", "update"),
        ]
    ]
    assert "4 rows for group" in ended.err
    assert "3 to update, 1 unchanged, 2 identifiers move between samples in this file" in ended.err
    assert undo_files(lab) == before


def test_result_contains_counts_and_undo_file(lab: Lab, group: int, update: Update) -> None:
    ended = update("--yes", "--output", "json")
    (result,) = json.loads(ended.out)
    undo = result.pop("undo_file")
    assert undo == str(undo_files(lab)[-1])
    assert result.pop("group").startswith("Laboratory ")
    assert re.fullmatch(r"\d{8}-\d{6}-[0-9a-f]{4}", result.pop("run"))
    counts = {"group_id": group, "rows": 4, "changed": 3, "already": 1, "left_out": 0}
    assert result == {**counts, "outcome": "updated"}
    assert f"aspencli --env local samples undo {undo}" in ended.err
    assert (Path(undo).stat().st_mode & 0o777, Path(undo).parent.stat().st_mode & 0o777) == (
        0o600,
        0o700,
    )
    head, *rows = Path(undo).read_text().splitlines()
    origin = json.loads(head.removeprefix("# aspencli undo "))
    assert (origin["target"], origin["group_id"], origin["rows"]) == ("local", group, 3)
    assert rows.pop(0) == "private_identifier,new_public_identifier,old_public_identifier,id"
    assert [row.rpartition(",")[0] for row in rows] == [
        "L-1,P-2,P-1",
        "L-2,P-1,P-2",
        "'=1+1,N-1,P-formula",
    ]


def test_second_run_changes_nothing(lab: Lab, update: Update) -> None:
    assert update("--yes").code == 0
    before = undo_files(lab)
    ended = update("--output", "json")  # nothing to confirm
    assert (ended.code, ended.written) == (0, {})
    assert json.loads(ended.out)[0]["already"] == 4
    assert "Nothing to change." in ended.err
    assert undo_files(lab) == before


def test_undo_hint_is_valid_shell_command(lab: Lab, group: int, mapping: Path) -> None:
    place = mapping.parent / "it's here; $(touch x)" / "undo file.csv"
    ended = lab.update(group, str(mapping), "--yes", "--undo-file", str(place))
    assert ended.code == 0
    hint = next(line for line in ended.err.splitlines() if "Undo it: " in line)
    words = shlex.split(hint.partition(": ")[2])
    assert words == ["aspencli", "--env", "local", "samples", "undo", str(place)]
    assert lab.watch(group, [*words[1:], "--yes"]).code == 0
    assert lab.names(group) == SAMPLES


def test_database_values_are_escaped_in_messages_and_report(
    lab: Lab, update: Update, tmp_path: Path
) -> None:
    group = lab.group({"L-1": "P-1", "x\nline 9: \x1b[31mall is well": "P-2"})
    file = tmp_path / "taken.csv"
    file.write_text(f"{H}\nL-1,P-2\n")
    report = tmp_path / "report.csv"
    ended = update("--yes", "--report", str(report), file=file, to=group)
    assert ended.code == 2
    assert ended.err.splitlines()[1] == (
        'line 2: public_identifier: "P-2" is already used by sample '
        '"x\\nline 9: \\u001b[31mall is well"'
    )
    assert not _CONTROL.search(report.read_text())


# The report


def report_rows(path: Path) -> list[tuple[str, ...]]:
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["line", "private_identifier", "before", "after", "outcome", "reason"]
    return [tuple(row) for row in rows]


def test_report_lists_outcome_of_every_row(update: Update, tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.csv"
    for option, outcome in (("--dry-run", "update"), ("--yes", "updated")):
        assert update(option, "--report", str(path)).code == 0
        assert report_rows(path) == [
            ("2", "L-1", "P-1", "P-2", outcome, ""),
            ("3", "L-2", "P-2", "P-1", outcome, ""),
            ("4", "L-3", "P-3", "P-3", "unchanged", ""),
            ("5", "'=1+1", "P-formula", "N-1", outcome, ""),
        ]


def test_report_of_refused_update_lists_reasons(
    update: Update, mapping: Path, tmp_path: Path
) -> None:
    mapping.write_text(f"{H}\nL-1,N-1\nL-2\nX,P-6\nL-2,\nL-3,P-3\n")
    path = tmp_path / "report.csv"
    ended = update("--yes", "--report", str(path))
    assert (ended.code, ended.written) == (2, {})
    unknown = 'private_identifier: the group has no sample "X"'
    held = 'public_identifier: "P-6" is already used by sample "L-6"'
    assert report_rows(path) == [
        ("2", "L-1", "P-1", "N-1", "skipped", ""),
        ("3", "", "", "", "failed", "has too few cells: 1 (the header has 2)"),
        ("4", "X", "", "P-6", "failed", f"{unknown}; {held}"),
        ("5", "", "", "", "failed", "public_identifier: is blank"),
        ("6", "L-3", "P-3", "P-3", "unchanged", ""),
    ]


def test_problems_beyond_display_limit_are_written_to_file(update: Update, mapping: Path) -> None:
    mapping.write_text(H + "\nL-1,N-1" + "".join(f"\nX-{n},N\x1b" for n in range(300)))
    ended = update("--yes")
    assert ended.code == 2
    shown = [line for line in ended.err.splitlines() if line.startswith("line ")]
    assert len(shown) == 200
    place = re.search(r"and 100 more. Full list: (.*)", ended.err)
    assert place
    rows = report_rows(Path(place[1]))
    assert (len(rows), rows[-1][0], {row[4] for row in rows}) == (300, "302", {"failed"})


@pytest.mark.parametrize(
    ("option", "place", "code", "says"),
    [
        ("--report", "file/report.csv", 1, "file is not a directory"),
        ("--report", "folder", 2, "is not a regular file"),
        ("--report", "/dev/null", 2, "is not a regular file"),
        ("--report", "ids.csv", 2, "would overwrite another file"),
        ("--report", "undo.csv", 2, "would overwrite another file"),
        ("--undo-file", "file", 2, "already exists"),
        ("--undo-file", "link", 2, "already exists"),
        ("--undo-file", "file/undo.csv", 1, "file is not a directory"),
        ("--undo-file", "/proc/undo.csv", 1, "Cannot write the undo file /proc/undo.csv"),
    ],
)
def test_unwritable_report_or_undo_file_stops_update(
    option: str, place: str, code: int, says: str, update: Update, mapping: Path
) -> None:
    folder = mapping.parent
    (folder / "file").write_text("here before")
    (folder / "folder").mkdir()
    (folder / "link").symlink_to("nowhere")
    listing, content = sorted(folder.iterdir()), mapping.read_bytes()
    undo = ["--undo-file", str(folder / "undo.csv")] if place == "undo.csv" else []
    ended = update("--yes", option, str(folder / place), *undo)
    assert (ended.code, ended.written, ended.out) == (code, {}, "")
    assert says in ended.err
    assert (sorted(folder.iterdir()), mapping.read_bytes()) == (listing, content)
    assert (folder / "file").read_text() == "here before"
    assert Path("/dev/null").is_char_device()


def test_unusable_undo_folder_stops_update(lab: Lab, update: Update) -> None:
    folder = lab.folder / "home" / "state" / "undo"
    if folder.exists():
        folder.rename(folder.with_name("undo-before"))
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.write_text("in the way")
    try:
        ended = update("--yes")
    finally:
        folder.unlink()
        if folder.with_name("undo-before").exists():
            folder.with_name("undo-before").rename(folder)
    assert (ended.code, ended.written) == (1, {})
    assert "nothing was changed" in ended.err
    assert "--undo-file" in ended.err


# Memory

_MEASURED = """
import resource, sys
from aspencli.cli.main import run
code = run(sys.argv[1:])
sys.stdout.write(f"{code} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}")
"""


def test_memory_does_not_grow_with_mapping_file(lab: Lab, group: int, tmp_path: Path) -> None:
    peaks = []
    for count in (10, 100_000):
        file = tmp_path / f"{count}.csv"
        file.write_text(H + "".join(f"\nX-{n},N-{n}" for n in range(count)))
        words = ["samples", "update-public-ids", "--group-id", str(group), "-f", str(file)]
        done = subprocess.run(
            [sys.executable, "-c", _MEASURED, *words, "--report", str(tmp_path / "report.csv")],
            env=lab.environment(),
            capture_output=True,
            text=True,
            check=True,
        )
        code, peak = done.stdout.split()
        assert code == "2"
        peaks.append(int(peak))  # kB; bytes on macOS
    assert peaks[1] < peaks[0] * 1.2
