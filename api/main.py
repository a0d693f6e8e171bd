"""The application: what stands under which path, and who may come in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Depends, FastAPI
from fastapi.middleware.cors import CORSMiddleware

from api.admission import AdmissionMiddleware
from api.auth import get_auth_user
from api.bodies import refuse_deep, refuse_nul
from api.context import get_access, get_pathogen
from api.documentation import SPECIFICATION, add_documentation
from api.errors import add_handlers, documented
from api.limits import Limits
from api.runtime import open_runtime
from api.settings import Settings
from api.views import (
    auspice,
    auth,
    groups,
    health,
    lineages,
    locations,
    pathogens,
    phylo_runs,
    phylo_trees,
    qc_mutations,
    samples,
    sequences,
    users,
    usher,
)

_BODIES = (Depends(refuse_deep), Depends(refuse_nul))
SIGNED_IN: dict[str, Any] = {
    "dependencies": [Depends(get_auth_user), *_BODIES],
    "responses": documented(401),
}
"""For routers that want a user, whoever it is."""


GATE = (
    Depends(get_auth_user),
    Depends(get_access),
    Depends(get_pathogen),
    *_BODIES,
)
"""For what belongs to a group: a user, a role in that group, a pathogen that exists."""


def create_app(settings: Settings | None = None, limits: Limits | None = None) -> FastAPI:
    """The application.

    Args:
        settings: How it is configured; read from the environment and the secret when None.
        limits: What a request may take; the usual limits when None.

    Raises:
        SettingsError: The service cannot start as it is configured.
    """
    chosen = settings or Settings.load()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_runtime(chosen, app.state.limits) as runtime:
            app.state.runtime = runtime
            yield

    app = FastAPI(
        title="Aspen",
        version=version("aspencli"),
        lifespan=lifespan,
        openapi_url=SPECIFICATION,
        docs_url=None,
        redoc_url=None,
        # As the live service does: a body without a type is JSON.
        strict_content_type=False,
    )
    app.state.limits = limits or Limits()
    add_handlers(app)
    add_documentation(app)
    add_routers(app)
    app.add_middleware(AdmissionMiddleware, limits=app.state.limits)
    app.add_middleware(
        CORSMiddleware,
        allow_origins=chosen.allowed_origins,
        allow_origin_regex=_local_pages(chosen),
        allow_credentials=True,
        allow_methods=["*"],
        allow_headers=["*"],
        max_age=600,
    )
    return app


def add_routers(app: FastAPI) -> None:
    """Put every noun's router where it belongs."""
    app.include_router(health.router, prefix="/v2/health")
    app.include_router(auth.router, prefix="/v2/auth")
    app.include_router(users.router, prefix="/v2/users", **SIGNED_IN)
    app.include_router(groups.router, prefix="/v2/groups", **SIGNED_IN)
    app.include_router(pathogens.router, prefix="/v2/pathogens", **SIGNED_IN)
    app.include_router(locations.router, prefix="/v2/locations", **SIGNED_IN)
    app.include_router(lineages.router, prefix="/v2/lineages", **SIGNED_IN)
    include_for_orgs(app, auspice.router, "auspice")
    include_for_orgs(app, auspice.open_router, "auspice", gate=())
    include_for_orgs(app, phylo_runs.router, "phylo_runs")
    include_for_orgs(app, phylo_trees.router, "phylo_trees")
    include_for_orgs(app, sequences.router, "sequences")
    include_for_orgs(app, qc_mutations.router, "qc_mutations")
    include_for_orgs(app, samples.router, "samples")
    include_for_orgs(app, usher.router, "usher")


def include_for_orgs(
    app: FastAPI, router: APIRouter, noun: str, *, gate: Sequence[Any] = GATE
) -> None:
    """Put a router under both forms of a group's path, behind the gate of its members.

    Args:
        app: Where to.
        router: The views.
        noun: The last part of the path, such as ``samples``.
        gate: What has to hold before anything else is looked at.
    """
    for prefix in ("/v2/orgs/{org_id}/pathogens/{pathogen_slug}", "/v2/orgs/{org_id}"):
        app.include_router(
            router,
            prefix=f"{prefix}/{noun}",
            dependencies=gate,
            responses=documented(400, 401, 403) if gate else documented(400),
        )


def _local_pages(settings: Settings) -> str | None:
    """A front end that is being worked on may be at any port."""
    return r"http://localhost:\d{1,5}" if settings.deployment_stage == "local" else None
