"""The query budget of each request, which does not depend on the number of rows."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi import APIRouter
from fastapi.responses import JSONResponse

from aspen.api.auth import CurrentUser
from aspen.api.deps import Db
from aspen.api.in_process import Asked, answer
from aspen.api.main import create_app
from aspen.database.models import Sample
from aspen.database.profiling.budgets import BudgetBrokenError
from aspen.database.profiling.recorder import Recorder
from tests.api.conftest import Api

QueryBudget = Callable[[Any, str], AbstractContextManager[Recorder]]


@pytest.mark.parametrize(
    ("path", "queries"),
    [
        ("/v2/users/me", 4),
        ("/v2/pathogens/", 2),
        ("/v2/locations/?limit=10", 3),
        ("/v2/groups/1/members/", 4),
        ("/v2/orgs/1/pathogens/SC2/samples/", 8),
        ("/v2/orgs/1/pathogens/SC2/phylo_runs/", 8),
    ],
)
def test_request_stays_within_query_budget(
    shared_roles: Api, query_budget: QueryBudget, path: str, queries: int
) -> None:
    found = answer(
        shared_roles.settings,
        Asked("GET", path, user="auth0|gadmin"),
        lambda engine: query_budget(engine, f"queries<={queries},n+1=0,failed=0"),
    )
    assert found.status in {200, 404}, found.body
    assert found.status == 200, path


def test_endpoint_with_n_plus_one_queries_breaks_budget_and_is_named(
    shared_roles: Api, query_budget: QueryBudget
) -> None:
    router = APIRouter()

    @router.get("/slow")
    async def slow(db: Db, _user: CurrentUser) -> JSONResponse:
        samples = (await db.scalars(sa.select(Sample).limit(200))).all()
        return JSONResponse([len(await one.awaitable_lineages(db)) for one in map(Loaded, samples)])

    app = create_app(shared_roles.settings)
    app.include_router(router)
    with pytest.raises(BudgetBrokenError) as told:
        answer(
            shared_roles.settings,
            Asked("GET", "/slow", user="auth0|gadmin"),
            lambda engine: query_budget(engine, "queries<=12,n+1=0"),
            app,
        )
    assert "n+1: 1 (limit = 0)" in str(told.value)
    assert "200 x " in str(told.value)
    assert "Sample.lineages loaded one by one, 200 times" in str(told.value)
    assert f"{__file__}:" in str(told.value)


class Loaded:
    """A sample whose lineages are loaded on access."""

    def __init__(self, sample: Sample):
        self._sample = sample

    async def awaitable_lineages(self, db: Db) -> list[Any]:
        return await db.run_sync(lambda _session: list(self._sample.lineages))
