"""The guide "add an endpoint", followed word for word in a copy of the service."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "guides" / "add-an-endpoint.md"
_FILE = re.compile(
    r"^`((?:api/aspen/api|tests)/[\w/]+\.py)`[^\n]*\n\n```python\n(.*?)^```", re.M | re.S
)
_BLOCK = re.compile(r"^```python\n(.*?)^```", re.M | re.S)


def test_who_follows_the_recipe_gets_an_endpoint_that_passes_its_tests(tmp_path: Path) -> None:
    for package in ("api", "tests"):
        shutil.copytree(
            ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    text = GUIDE.read_text()
    written = {name: code for name, code in _FILE.findall(text) if name != "api/aspen/api/main.py"}
    assert set(written) == {
        "api/aspen/api/schemas/repositories.py",
        "api/aspen/api/views/repositories.py",
        "tests/api/test_repositories.py",
    }
    for name, code in written.items():
        (tmp_path / name).write_text(code)
    imported, included = _route(text)
    main = tmp_path / "api" / "aspen" / "api" / "main.py"
    before = main.read_text()
    main.write_text(
        before.replace("\n\n_BODIES", f"\n{imported}\n\n_BODIES", 1).replace(
            "    app.include_router(pathogens.router",
            f"{included}    app.include_router(pathogens.router",
            1,
        )
    )
    assert len(main.read_text()) == len(before) + len(imported) + len(included) + 1
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "tests/api/test_repositories.py", "tests/api/test_frame.py"],
        cwd=tmp_path,
        # The service comes from the copy; everything else is this checkout's.
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^\d+ passed", done.stdout.splitlines()[-1])


def _route(text: str) -> tuple[str, str]:
    section = text.partition("## 3. The route")[2]
    imported, included = _BLOCK.findall(section)[:2]
    return imported.strip(), included
