"""The guide "add an endpoint", followed word for word in a copy of the service."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.conftest import GIVEN_SERVER, Server

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "guides" / "add-an-endpoint.md"
_FILE = re.compile(
    r"^`((?:api/aspen/api|tests)/[\w/]+\.py)`[^\n]*\n\n```python\n(.*?)^```", re.M | re.S
)
_BLOCK = re.compile(r"^```python\n(.*?)^```", re.M | re.S)


# The blocks of the runbook's "maximal case". `SomeModel`, `somefield`, and `bar` stand for the
# model and the columns of the new endpoint; its import of the view is pseudocode.
_RUNBOOK_SCHEMAS = """
from typing import List
from aspen.api.schemas.base import BaseResponse, BaseRequest

class NewRequest(BaseRequest):
    foo: str

class NewResponseItem(BaseResponse):
    id: int
    name: str

class NewResponseList(BaseResponse):
    rows: List[NewResponseItem]
"""
_RUNBOOK_VIEW = """
import sqlalchemy as sa
from fastapi import APIRouter, Depends
from sqlalchemy.ext.asyncio import AsyncSession
from aspen.api.auth import get_auth_user
from aspen.api.deps import get_db, get_settings
from aspen.api.schemas.new_module import NewRequest, NewResponseList
from aspen.api.settings import Settings
from aspen.database.models import User, Pathogen

router = APIRouter()

@router.get("/", response_model=NewResponseList)
async def list_items(
    request: NewRequest,
    db: AsyncSession = Depends(get_db),
    settings: Settings = Depends(get_settings),
    user: User = Depends(get_auth_user),
) -> NewResponseList:
    rows = (
        (await db.execute(sa.select(Pathogen).filter(Pathogen.slug == request.foo)))
        .scalars()
        .all()
    )
    return NewResponseList.parse_obj({"rows": rows})
"""
_RUNBOOK_ROUTE = """
    app.include_router(
        new_module.router,
        prefix="/v2/new_module",
        dependencies=[Depends(get_auth_user)],
    )
"""
_RUNBOOK_TEST = """
import pytest

from tests.api.conftest import Api


@pytest.mark.filterwarnings("ignore:The `parse_obj` method")
def test_new_module(api: Api) -> None:
    path, body = "/v2/new_module/", {"foo": "SC2"}
    assert api("GET", path, json=body).status_code == 401
    assert api("GET", path, "member", json={}).status_code == 422
    listed = api("GET", path, "member", json=body)
    assert (listed.status_code, listed.json()) == (200, {"rows": [{"id": 1, "name": "SARS-CoV-2"}]})
"""


def _copy_service(folder: Path) -> None:
    for package in ("api", "tests"):
        # With the compiled modules, which are valid for unchanged ones; others are being written.
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("*.pyc.*"))
    shutil.copy(ROOT / "pyproject.toml", folder)


def _test_copy(folder: Path, server: Server, *tests: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
        cwd=folder,
        # The service comes from the copy; everything else is this checkout's.
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(folder / "api"), str(folder)]),
            GIVEN_SERVER: server.url("postgres"),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^\d+ passed", done.stdout.splitlines()[-1])


def test_runbook_recipe_produces_working_endpoint(tmp_path: Path, postgres: Server) -> None:
    _copy_service(tmp_path)
    service = tmp_path / "api" / "aspen" / "api"
    (service / "schemas" / "new_module.py").write_text(_RUNBOOK_SCHEMAS)
    (service / "views" / "new_module.py").write_text(_RUNBOOK_VIEW)
    (tmp_path / "tests" / "api" / "test_new_module.py").write_text(_RUNBOOK_TEST)
    main = service / "main.py"
    route = "    app.include_router(pathogens.router"
    imported = (
        "from fastapi import Depends\n"
        "from aspen.api.auth import get_auth_user\n"
        "from aspen.api.views import new_module\n"
    )
    before = main.read_text()
    main.write_text(
        before.replace("\n\n_BODIES", f"\n{imported}\n_BODIES", 1).replace(
            route, f"{_RUNBOOK_ROUTE}{route}", 1
        )
    )
    assert len(main.read_text()) == len(before) + len(imported) + len(_RUNBOOK_ROUTE)
    _test_copy(tmp_path, postgres, "tests/api/test_new_module.py")


def test_add_endpoint_guide_produces_endpoint_that_passes_its_tests(
    tmp_path: Path, postgres: Server
) -> None:
    _copy_service(tmp_path)
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
    _test_copy(tmp_path, postgres, "tests/api/test_repositories.py", "tests/api/test_frame.py")


def _route(text: str) -> tuple[str, str]:
    section = text.partition("## 3. The route")[2]
    imported, included = _BLOCK.findall(section)[:2]
    return imported.strip(), included
