"""Files that the program writes: private to their owner, and never through a planted symlink."""

from __future__ import annotations

import ast
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from aspen.database.engine import Database
from aspencli import files
from aspencli.errors import BadInputError, RefusedError
from tests.conftest import CliRunner

ROOT = Path(__file__).parents[1]
WRITERS = frozenset(
    {"write_text", "write_bytes", "touch", "mkdir", "makedirs", "symlink_to", "copyfile"}
)
ALLOWED = {
    # This is the one module that writes files.
    "aspencli/files.py",
    # A revision is source code that Alembic writes to a checkout.
    "db/aspen/database/alembic.py",
}


@pytest.fixture(params=[0o000, 0o022, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_written_files_are_private_under_any_umask(tmp_path: Path, umask: None) -> None:
    folder = tmp_path / "one" / "two"
    files.make_folder(folder)
    files.write_whole(folder / "whole", "text")
    os.close(files.create(folder / "created"))
    os.close(files.open_own(folder / "opened"))
    with files.replacing(folder / "replaced") as file:
        file.write(b"bytes")
    (folder / "old").write_text("public")
    (folder / "old").chmod(0o644)
    files.write_whole(folder / "old", "private")
    assert {mode(one) for one in (tmp_path / "one", folder)} == {0o700}
    assert {mode(one) for one in folder.iterdir()} == {0o600}
    assert len([*folder.iterdir()]) == 5  # no unfinished file is left


@pytest.mark.parametrize("there", [True, False], ids=["a file", "nothing"])
def test_planted_symlink_is_refused(tmp_path: Path, there: bool) -> None:
    victim, link = tmp_path / "victim", tmp_path / "link"
    if there:
        victim.write_text("precious")
    link.symlink_to(victim)
    with pytest.raises(RefusedError, match="is a symbolic link"):
        files.write_whole(link, "x")
    with pytest.raises(OSError, match="it is a symbolic link"):
        files.open_own(link)
    with pytest.raises(FileExistsError):
        files.create(link)
    assert victim.exists() == there
    assert not there or victim.read_text() == "precious"
    assert link.is_symlink()


def test_symlink_planted_during_write_is_replaced(tmp_path: Path) -> None:
    victim, place = tmp_path / "victim", tmp_path / "place"
    victim.write_text("precious")
    with files.replacing(place) as file:
        file.write(b"ours")
        place.symlink_to(victim)
    assert victim.read_text() == "precious"
    assert not place.is_symlink()
    assert place.read_text() == "ours"


def test_failed_write_keeps_existing_file(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.write_text("before")
    with pytest.raises(ZeroDivisionError), files.replacing(place):
        _ = 1 / 0
    assert [*tmp_path.iterdir()] == [place]
    assert place.read_text() == "before"


def test_write_to_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="is a directory"):
        files.write_whole(tmp_path, "x")
    with pytest.raises(IsADirectoryError):
        files.open_own(tmp_path)


@pytest.mark.parametrize("flags", [os.O_RDWR, os.O_RDWR | os.O_APPEND])
def test_open_own_refuses_named_pipe(tmp_path: Path, flags: int) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="it is not a regular file"):
        files.open_own(pipe, flags=flags)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_write_whole_writes_into_named_pipe(tmp_path: Path) -> None:
    pipe, read = tmp_path / "pipe", list[bytes]()
    os.mkfifo(pipe)
    thread = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    thread.start()
    files.write_whole(pipe, "text")
    thread.join()
    assert read == [b"text"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_devices_are_streams_and_are_not_replaced() -> None:
    files.write_whole(Path("/dev/null"), "text")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    assert files.is_stream(Path("/dev/stdout"))
    assert files.is_stream(Path("/dev/fd/1"))
    assert not files.is_stream(Path("/nowhere"))


def test_profile_page_is_private_and_refuses_symlink(
    tmp_path: Path, run_cli: CliRunner, seeded: Database, umask: None
) -> None:
    words = ("db", "profile", "--sql", "select 1", "--html")
    page, victim, link = (tmp_path / name for name in ("page.html", "victim", "link.html"))
    victim.write_text("precious")
    link.symlink_to(victim)
    done = run_cli(*words, str(page), database=seeded)
    assert done.code == 0, done.err
    assert mode(page) == 0o600
    refused = run_cli(*words, str(link), database=seeded)
    assert refused.code == 3
    assert "is a symbolic link; nothing was written" in refused.err
    assert victim.read_text() == "precious"
    kept = run_cli(*words, "/dev/null", database=seeded)
    assert kept.code == 0, kept.err
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_reports_and_undo_files_are_private(
    tmp_path: Path, run_cli: CliRunner, seeded: Database, umask: None
) -> None:
    found = run_cli("samples", "list", "--group", "1", "-o", "json", database=seeded)
    mapping = tmp_path / "ids.csv"
    first = found.out.split('"private_identifier": "')[1].split('"')[0]
    mapping.write_text(f"private_identifier,public_identifier\n{first},NEW\nmissing,X\n")
    out = tmp_path / "out"
    done = run_cli(
        *("samples", "update-public-ids", "--group-id", "1", "--yes", "--skip-missing"),
        *("--private-to-public-id-mapping", str(mapping)),
        *("--report", str(out / "report.csv"), "--undo-file", str(out / "undo.csv")),
        database=seeded,
    )
    assert done.code in {0, 2}, done.err
    written = [one for one in tmp_path.rglob("*") if one not in {mapping}]
    assert {mode(one) for one in written if one.is_file()} <= {0o600}, done.err
    assert {mode(one) for one in written if one.is_dir()} <= {0o700}


def _writes(tree: ast.AST) -> Iterator[int]:
    """Yield the lines that write to a file directly."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        name = node.func.id if isinstance(node.func, ast.Name) else name
        words = [one.value for one in node.args if isinstance(one, ast.Constant)]
        words += [one.value.value for one in node.keywords if isinstance(one.value, ast.Constant)]
        modes = [one for one in words if isinstance(one, str) and set(one) <= set("rwaxbt+")]
        creates = any(
            isinstance(one, ast.Attribute) and one.attr == "O_CREAT" for one in ast.walk(node)
        )
        opened = name in {"open", "fdopen"} and any(set(one) & set("wax") for one in modes)
        wrapped = name == "fdopen" and any(
            isinstance(one, ast.Call | ast.Name) for one in node.args[:1]
        )
        if isinstance(node.args[0] if node.args else None, ast.Constant) and opened:
            opened = not isinstance(words[0], int)  # an already open stream
        if name in WRITERS or creates or (opened and not wrapped):
            yield node.lineno


def test_only_files_module_writes_files_directly() -> None:
    found = {
        f"{path.relative_to(ROOT)}:{line}"
        # Jobs write files too, but only inside the folder of their job, which is private.
        for package in ("aspencli", "api", "db", "local", "migrations")
        for path in (ROOT / package).rglob("*.py")
        if str(path.relative_to(ROOT)) not in ALLOWED
        for line in _writes(ast.parse(path.read_text()))
    }
    assert found == set()
