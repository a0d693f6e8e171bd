"""Helpers for tests of ``db profile``: more samples, and slow code with a known fix."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa

from aspen.database.engine import Database
from tests.cli.commands.ending import Ended

Profiling = Callable[..., Ended]
CURE = ".options(selectinload(Sample.lineages))"
SCRIPT = """\
from sqlalchemy.orm import selectinload

for sample in session.scalars(select(Sample).limit(200){cure}):
    list(sample.lineages)
"""
ENDPOINT = """\
import sqlalchemy as sa
from fastapi import APIRouter
from fastapi.responses import JSONResponse
from sqlalchemy.orm import selectinload

from aspen.api.auth import CurrentUser
from aspen.api.deps import Db
from aspen.database.models import Sample

router = APIRouter()


@router.get("/v2/slow")
async def slow(db: Db, _user: CurrentUser) -> JSONResponse:
    samples = (await db.scalars(sa.select(Sample).limit(200){cure})).all()
    return JSONResponse(await db.run_sync(lambda _: [len(one.lineages) for one in samples]))
"""
# Python runs this at start-up, because the command itself does not know the endpoint.
_AT_THE_START = """\
import aspen.api.main
import slow_endpoint

made = aspen.api.main.create_app


def create_app(settings=None):
    app = made(settings)
    app.include_router(slow_endpoint.router)
    return app


aspen.api.main.create_app = create_app
"""
_TWO_HUNDRED = sa.text(
    "insert into samples select (jsonb_populate_record(more, jsonb_build_object("
    "'id', 10000 + i, 'private_identifier', 'p' || i, 'public_identifier', 'u' || i))).*"
    " from samples more, generate_series(1, 200) i where more.id = (select min(id) from samples)"
)


def add_two_hundred(database: Database) -> None:
    """Copy a sample 200 times."""
    with database.begin() as session:
        session.execute(_TWO_HUNDRED)


def line_of(text: str, part: str) -> int:
    """Return the number of the only line that contains the given text."""
    (number,) = [n for n, line in enumerate(text.splitlines(), 1) if part in line]
    return number


def plug_in(folder: Path, endpoint: str) -> dict[str, str]:
    """Add an endpoint to every service of a process, and return the process's environment."""
    (folder / "slow_endpoint.py").write_text(endpoint)
    (folder / "sitecustomize.py").write_text(_AT_THE_START)
    # Otherwise, a module that changes within a second would be loaded from its old bytecode.
    return {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
