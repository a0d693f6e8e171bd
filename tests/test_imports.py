"""The import names of the runbook, and folders that have packages of the same names as ours."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
_RUNBOOK = """
from aspen.api.auth import get_auth_user
from aspen.api.deps import get_db, get_settings
from aspen.api.schemas.base import BaseRequest, BaseResponse
from aspen.api.settings import Settings
from aspen.database.connection import (
    disable_profiling, enable_profiling, enable_profiling_ctx,
)
from aspen.database.models import User
print(User.__table__.fullname, get_db.__name__)
"""
_FOLDERS = ("api", "db", "local", "migrations", "workflows")


def _python(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], cwd=folder, capture_output=True, text=True, check=False
    )


def test_runbook_imports_work_in_any_folder(tmp_path: Path) -> None:
    done = _python("-c", _RUNBOOK, folder=tmp_path)
    assert (done.returncode, done.stdout) == (0, "aspen.users get_db\n"), done.stderr


def test_program_runs_in_folder_with_packages_of_same_names(tmp_path: Path) -> None:
    for name in _FOLDERS:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise RuntimeError({name!r})\n")
    for words in (["--version"], ["db", "--help"], ["pathogens", "list", "--help"]):
        done = _python("-m", "aspencli", *words, folder=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")


def test_wheel_contains_only_aspen_and_aspencli(tmp_path: Path) -> None:
    build = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = _python(*build, "--wheel-dir", str(tmp_path), str(ROOT), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        everything = archive.namelist()
    data = {name.partition(".data/data/")[2] for name in everything if ".data/" in name}
    pages = (ROOT / "docs" / "man").glob("*.1")
    assert data == {f"share/man/man1/{page.name}" for page in pages}
    names = [name for name in everything if ".data/" not in name]
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {
        "aspen",
        "aspencli",
    }
    assert "aspen/__init__.py" not in names
    checkout = {
        str(path.relative_to(root))
        for root in (ROOT, *(ROOT / name for name in _FOLDERS))
        for package in ("aspencli", "aspen")
        for path in (root / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert checkout == {name for name in names if ".dist-info/" not in name}


def test_wheel_install_leaves_other_packages_intact(tmp_path: Path) -> None:
    site = tmp_path / "site"
    for name in _FOLDERS:
        (site / name).mkdir(parents=True)
        (site / name / "__init__.py").write_text("MINE = True\n")
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = _python(*install, "--target", str(site), str(ROOT), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    for name in _FOLDERS:
        assert [path.name for path in (site / name).iterdir()] == ["__init__.py"]
        assert (site / name / "__init__.py").read_text() == "MINE = True\n"
    assert (site / "aspencli" / "__main__.py").is_file()
