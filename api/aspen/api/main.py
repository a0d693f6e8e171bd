"""The application: its routes, who has access to them, and its documentation at ``/v2/docs``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import fastapi_offline
from fastapi import APIRouter, Depends, FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles

from aspen.api.admission import AdmissionMiddleware, refuse_deep, refuse_nul
from aspen.api.auth import get_auth_user
from aspen.api.deps import get_access, get_pathogen
from aspen.api.errors import add_handlers, documented
from aspen.api.limits import ServiceLimits
from aspen.api.runtime import open_runtime
from aspen.api.settings import Settings
from aspen.api.views import (
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

DOCS, SPECIFICATION = "/v2/docs", "/v2/openapi.json"
_ASSETS = f"{DOCS}/assets"

_BODIES = (Depends(refuse_deep), Depends(refuse_nul))
SIGNED_IN: dict[str, Any] = {
    "dependencies": [Depends(get_auth_user), *_BODIES],
    "responses": documented(401),
}
"""The options of routers that require a signed-in user."""

GATE = (
    Depends(get_auth_user),
    Depends(get_access),
    Depends(get_pathogen),
    *_BODIES,
)
"""The requirements for a group's data: a user, a role in the group, an existing pathogen."""


def create_app(settings: Settings | None = None, limits: ServiceLimits | None = None) -> FastAPI:
    """Create the application; without settings, they come from the environment and the secret.

    Raises:
        SettingsError: The service cannot start as configured.
    """
    chosen = settings or Settings.load()
    app = FastAPI(
        title="Aspen",
        version=version("aspencli"),
        lifespan=_lifespan(chosen),
        openapi_url=SPECIFICATION,
        docs_url=None,
        redoc_url=None,
        # As in the live service, a body without a content type is JSON.
        strict_content_type=False,
    )
    app.state.limits = limits or ServiceLimits()
    add_handlers(app)
    add_documentation(app)
    add_routers(app)
    app.add_middleware(AdmissionMiddleware, limits=app.state.limits)
    _allow_origins(app, chosen)
    return app


def _lifespan(settings: Settings) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_runtime(settings, app.state.limits) as runtime:
            app.state.runtime = runtime
            yield

    return lifespan


def _allow_origins(app: FastAPI, settings: Settings) -> None:
    is_local = settings.deployment_stage == "local"
    app.add_middleware(
        CORSMiddleware,
        allow_origins=settings.allowed_origins,
        # A front end on any local port.
        allow_origin_regex=r"http://localhost:\d{1,5}" if is_local else None,
        allow_credentials=True,
        allow_methods=["*"],
        allow_headers=["*"],
        max_age=600,
    )


def add_documentation(app: FastAPI) -> None:
    """Add API documentation that works without Internet access."""
    folder = Path(fastapi_offline.__file__).parent / "static"
    app.mount(_ASSETS, StaticFiles(directory=folder))

    @app.get(DOCS, include_in_schema=False)
    async def docs() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url=SPECIFICATION,
            title=f"{app.title} API",
            swagger_js_url=f"{_ASSETS}/swagger-ui-bundle.js",
            swagger_css_url=f"{_ASSETS}/swagger-ui.css",
            swagger_favicon_url=f"{_ASSETS}/favicon.png",
            swagger_ui_parameters={"persistAuthorization": True, "tryItOutEnabled": True},
        )


def add_routers(app: FastAPI) -> None:
    """Add the router of each resource under its path."""
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
    """Add a router under both forms of a group's path, behind the checks for group members."""
    for prefix in ("/v2/orgs/{org_id}/pathogens/{pathogen_slug}", "/v2/orgs/{org_id}"):
        app.include_router(
            router,
            prefix=f"{prefix}/{noun}",
            dependencies=gate,
            responses=documented(400, 401, 403) if gate else documented(400),
        )
