from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from aspencli.cli.main import run
from tests.cli.commands.mapping_cases import H
from tests.cli.commands.mapping_lab import SAMPLES, Ended, Lab
from tests.conftest import Server

ROWS = {"L-1": "P-2", "L-2": "P-1", "L-3": "N-3", "L-4": "N-4"}
Undo = Callable[..., Ended]


@pytest.fixture(autouse=True)
def here(lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Run commands in this process, without a terminal."""
    for name, value in lab.environment().items():
        monkeypatch.setenv(name, value)

    def run_here(*words: str, stdin: None) -> tuple[int, str, str]:
        lab.use(monkeypatch, words)
        capsys.readouterr()
        return run(words), *capsys.readouterr()

    monkeypatch.setattr(lab, "run", run_here)


@pytest.fixture
def group(lab: Lab) -> int:
    return lab.group()


@pytest.fixture
def file(lab: Lab, group: int, tmp_path: Path) -> Path:
    """Return the undo file of a bulk update."""
    return update(lab, group, ROWS, tmp_path / "undo.csv")


@pytest.fixture
def undo(lab: Lab, group: int, file: Path) -> Undo:
    return lambda *options: lab.watch(group, ["samples", "undo", str(file), *options])


def update(lab: Lab, group: int, rows: dict[str, str], undo_file: Path) -> Path:
    mapping = undo_file.with_suffix(".mapping")
    mapping.write_text(H + "".join(f'\n"{lab_id}","{new}"' for lab_id, new in rows.items()))
    ended = lab.update(group, str(mapping), "--yes", "--undo-file", str(undo_file))
    assert (ended.code, ended.written) == (0, rows)
    return undo_file


def test_undo_restores_all_identifiers(lab: Lab, group: int, undo: Undo) -> None:
    ended = undo("--yes", "--output", "json")
    assert ended.code == 0, ended.err
    assert lab.names(group) == SAMPLES
    (result,) = json.loads(ended.out)
    assert (result["rows"], result["changed"], result["left_out"]) == (4, 4, 0)
    again = undo("--yes")
    assert (again.code, again.written) == (0, {})
    assert "Nothing to change." in again.err


def test_undo_can_be_undone(lab: Lab, group: int, undo: Undo, tmp_path: Path) -> None:
    redo = tmp_path / "redo.csv"
    assert undo("--yes", "--undo-file", str(redo)).code == 0
    ended = lab.watch(group, ["samples", "undo", str(redo), "--yes"])
    assert (ended.code, ended.written) == (0, ROWS)


def test_undo_files_of_older_versions_are_read(lab: Lab, group: int, tmp_path: Path) -> None:
    file = tmp_path / "old.csv"
    made = "2026-01-01T00:00:00+00:00"
    mark = f'{{"target": "local", "group_id": {group}, "made": "{made}", "rows": 2}}'
    header = "private_identifier,new_public_identifier,old_public_identifier"
    file.write_text(f"# aspencli undo {mark}\n{header}\nL-1,P-1,O-1\n'=1+1,P-formula,'@O\n")
    ended = lab.watch(group, ["samples", "undo", str(file), "--yes"])
    assert (ended.code, ended.written) == (3, {})  # the file does not name its database
    ended = lab.watch(group, ["samples", "undo", str(file), "--confirm", "local"])
    assert (ended.code, ended.written) == (0, {"L-1": "O-1", "=1+1": "@O"})


def test_undo_finds_samples_whose_private_identifiers_were_swapped(
    lab: Lab, group: int, undo: Undo
) -> None:
    for lab_id, renamed in (("L-3", "away"), ("L-4", "L-3"), ("away", "L-4")):
        lab.execute(
            "UPDATE aspen.samples SET private_identifier = :renamed "
            "WHERE submitting_group_id = :g AND private_identifier = :lab",
            g=group,
            lab=lab_id,
            renamed=renamed,
        )
    planned = undo("--dry-run", "--output", "jsonl")
    plan = [json.loads(line) for line in planned.out.splitlines()]
    assert [row["private_identifier"] for row in plan] == ["L-1", "L-2", "L-4", "L-3"]
    assert undo("--yes").code == 0
    assert lab.names(group) == SAMPLES | {"L-3": "P-4", "L-4": "P-3"}


def test_undo_requires_confirmation(undo: Undo) -> None:
    ended = undo()
    assert (ended.code, ended.written) == (3, {})
    assert "--yes" in ended.err


def test_undo_dry_run_shows_plan_and_writes_nothing(undo: Undo) -> None:
    ended = undo("--dry-run", "--output", "jsonl")
    assert (ended.code, ended.written) == (0, {})
    plan = [json.loads(line) for line in ended.out.splitlines()]
    assert [(row["private_identifier"], row["public_identifier_after"]) for row in plan] == [
        (lab_id, SAMPLES[lab_id]) for lab_id in ROWS
    ]


def test_undo_skips_and_names_samples_changed_since(
    lab: Lab, group: int, undo: Undo, tmp_path: Path
) -> None:
    lab.rename(group, "L-3", "since")
    lab.execute(
        "DELETE FROM aspen.samples WHERE submitting_group_id = :g AND private_identifier = 'L-4'",
        g=group,
    )
    names = lab.names(group)
    report = tmp_path / "report.csv"
    ended = undo("--yes", "--output", "json", "--report", str(report))
    assert ended.code == 7
    assert lab.names(group) == names | {"L-1": "P-1", "L-2": "P-2"}
    assert 'line 5: public_identifier: "L-3" is now named "since", expected "N-3"' in ended.err
    assert 'line 6: private_identifier: sample "L-4" no longer exists' in ended.err
    assert "2 of 4 samples skipped (listed above)" in ended.err
    (result,) = json.loads(ended.out)
    assert (result["rows"], result["changed"], result["left_out"]) == (4, 2, 2)
    outcomes = [line.split(",")[4] for line in report.read_text().splitlines()[1:]]
    assert outcomes == ["updated", "updated", "skipped", "skipped"]


def test_undo_writes_nothing_if_all_samples_changed_since(lab: Lab, group: int, undo: Undo) -> None:
    for lab_id in ROWS:
        lab.rename(group, lab_id, f"since {lab_id}")
    ended = undo("--yes")
    assert (ended.code, ended.written) == (7, {})
    assert "Nothing to change: 4 rows skipped." in ended.err


def test_undo_skips_samples_that_depend_on_skipped_ones(
    lab: Lab, group: int, tmp_path: Path
) -> None:
    """L-1 to L-4 each took the next one's name; P-1, which was free then, is now taken."""
    rows = {"L-1": "P-2", "L-2": "P-3", "L-3": "P-4", "L-4": "N-4", "L-5": "N-5"}
    file = update(lab, group, rows, tmp_path / "chain.csv")
    lab.rename(group, "L-6", "P-1")
    ended = lab.watch(group, ["samples", "undo", str(file), "--yes"])
    assert (ended.code, ended.written) == (7, {"L-5": "P-5"})
    for line, name, holder in [(3, "P-1", "L-6"), (4, "P-2", "L-1"), (5, "P-3", "L-2")]:
        assert (
            f'line {line}: public_identifier: "{name}" is already used by sample "{holder}"'
            in ended.err
        )


def test_undo_restores_identifiers_with_special_characters(lab: Lab, tmp_path: Path) -> None:
    odd = [
        "=1+1",
        "'=1",
        "''",
        "+x",
        "-x",
        "@x",
        "\\N",
        " x ",
        'a,"b"',
        "é\u2028",
        "tab\tx",
        "a\rb",
    ]
    names = {f"{text}": f"{text}!" for text in odd}
    group = lab.group(names)
    mapping = {text: f"new {n}" for n, text in enumerate(odd) if text.isprintable()}
    mapping.pop(" x ")
    mapping['a,"b"'.replace('"', '""')] = mapping.pop('a,"b"')
    file = tmp_path / "odd.mapping"
    file.write_text(H + "".join(f'\n"{lab_id}","{new}"' for lab_id, new in mapping.items()))
    undo_file = tmp_path / "odd.csv"
    ended = lab.update(group, str(file), "--yes", "--undo-file", str(undo_file))
    assert (ended.code, len(ended.written)) == (0, len(mapping)), ended.err
    assert lab.watch(group, ["samples", "undo", str(undo_file), "--yes"]).code == 0
    assert lab.names(group) == names


def test_undo_on_another_target_is_refused(undo: Undo) -> None:
    ended = undo("--env", "prod", "--confirm", "prod")
    assert (ended.code, ended.written) == (2, {})
    assert "was written on local, but the target is prod" in ended.err


@pytest.fixture
def clone(lab: Lab, file: Path, postgres: Server) -> Iterator[str]:
    """Yield a copy of the database made after the update, with the same rows."""
    del file
    lab.engine.dispose()
    name = postgres.create(template=str(make_url(lab.address).database))
    yield postgres.url(name)
    postgres.drop(name)


@pytest.mark.parametrize(
    "options", [("--yes",), ("--confirm", "local"), ("--dry-run",), ("--force", "--yes")]
)
def test_undo_refuses_another_database_of_same_target(
    clone: str,
    lab: Lab,
    group: int,
    file: Path,
    options: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    there = Lab(clone, lab.folder)
    before = there.names(group)
    monkeypatch.setenv("ASPEN_DATABASE_URL_LOCAL", clone)
    code = run(["samples", "undo", str(file), *options])
    err = capsys.readouterr().err
    assert (code, there.names(group)) == (3, before)
    assert str(make_url(lab.address).database) in err
    assert str(make_url(clone).database) in err
    there.engine.dispose()


def test_undo_file_without_database_name_requires_confirm(undo: Undo, file: Path, lab: Lab) -> None:
    mark, _, rest = file.read_text().partition("\n")
    fields = json.loads(mark.removeprefix("# aspencli undo "))
    del fields["place"]
    moved = file.with_name("moved.csv")
    moved.write_text(f"# aspencli undo {json.dumps(fields)}\n{rest}")
    file.write_text(moved.read_text())
    journal = lab.home / "state" / "history" / "journal.jsonl"
    kept = journal.read_text()
    journal.write_text("")
    assert undo("--yes").code == 3
    ended = undo("--confirm", "local")
    journal.write_text(kept)
    assert ended.code == 0, ended.err
    assert "Cannot tell whether" in ended.err


def edited(change: Callable[[str], str]) -> Callable[[Path], object]:
    return lambda file: file.write_text(change(file.read_text()))


def without_last_line(text: str) -> str:
    return text.rstrip("\n").rpartition("\n")[0] + "\n"


def with_last_id_twice(text: str) -> str:
    *others, third, last = text.splitlines()
    last = last.rpartition(",")[0] + "," + third.rpartition(",")[2]
    return "\n".join([*others, third, last]) + "\n"


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (edited(lambda text: text.partition("\n")[2]), "not an aspencli undo file"),
        (
            edited(lambda text: text.replace('"rows": 4', '"rows": "4"')),
            "not an aspencli undo file",
        ),
        (
            edited(lambda text: text.replace('"group_id": ', '"group_id": 1.5, "x": ')),
            "not an aspencli undo file",
        ),
        (edited(lambda text: f"{text[:60]}\n"), "not an aspencli undo file"),
        (edited(lambda _text: ""), "not an aspencli undo file"),
        (lambda file: file.write_bytes(b"PK\x03\x04\xff\xfe"), "not an aspencli undo file"),
        (Path.unlink, "Cannot read "),
        (edited(without_last_line), "line 5: the file has 3 rows, but was written with 4"),
        (edited(lambda text: text + "L-5,P-5,X\n"), "line 7: the file has 5 rows, but was"),
        (edited(lambda text: text.rpartition(",")[0]), "line 6: is truncated"),
        (edited(lambda text: text[:-1]), "line 6: is truncated"),
        (edited(lambda text: text.replace("N-3", "N\0")), "line 5: contains a NUL"),
        (edited(with_last_id_twice), "duplicate of line 5"),
        (edited(lambda text: text.replace("P-3", '"P-3')), "line 5: a quote opened on this line"),
        (edited(lambda text: text.replace("old_p", "new_p")), "not the header of an undo file"),
        (lambda file: file.write_bytes(file.read_bytes() + b"\xff"), "byte 0xFF"),
    ],
    ids=[
        "no first line",
        "text for a number",
        "another field",
        "first line cut",
        "empty",
        "zip",
        "missing",
        "row missing",
        "row added",
        "row cut",
        "end cut",
        "NUL",
        "sample twice",
        "open quote",
        "header",
        "no UTF-8",
    ],
)
def test_damaged_undo_file_is_refused(
    damage: Callable[[Path], object], says: str, file: Path, undo: Undo
) -> None:
    damage(file)
    ended = undo("--yes")
    assert (ended.code, ended.written) == (2, {})
    assert says in ended.err


def test_undo_refuses_mapping_file(lab: Lab, group: int, file: Path) -> None:
    mapping = file.with_suffix(".mapping")
    ended = lab.watch(group, ["samples", "undo", str(mapping), "--yes"])
    assert (ended.code, ended.written) == (2, {})
    assert "not an aspencli undo file" in ended.err
    assert "that the update printed" in ended.err
