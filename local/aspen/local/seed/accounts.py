"""The initial content of the identity provider: the seeded users and the two client programs."""

from __future__ import annotations

import tomllib
from importlib.resources import files

from aspen.local.auth0.store import (
    ALL_MANAGEMENT_SCOPES,
    Client,
    Grant,
    Member,
    Organization,
    Role,
    Seed,
    User,
)
from aspen.local.processes import HOST
from aspen.local.seed.base import auth0_user_id, email, organization_name
from aspen.local.services import CLIENT_ID, MANAGEMENT_CLIENT_ID

_ROLES = ("admin", "member", "viewer")
_CALLBACKS = (f"http://{HOST}/v2/auth/callback",)  # no port, so any port is allowed
_LOGOUTS = (f"http://{HOST}/",)


def principals(client_secret: str, management_secret: str, api: str) -> Seed:
    """Return the users, groups, and roles of the test data, and the clients that request tokens.

    Args:
        client_secret: The service's secret for user sign-ins.
        management_secret: The service's secret for the Management API.
        api: The URL of the service, which invitation links lead to.
    """
    text = (files("aspen.local.seed") / "base.toml").read_text(encoding="utf-8")
    document = tomllib.loads(text)
    groups = {row["id"]: row for row in document["groups"]}
    return Seed(
        clients=_clients(client_secret, management_secret, api),
        users=[
            User(auth0_user_id(row["login"]), email(row["login"]), row["name"])
            for row in document["users"]
        ],
        organizations=[
            Organization(row["auth0_org_id"], organization_name(row["prefix"]), row["name"])
            for row in groups.values()
        ],
        roles=[Role(name) for name in _ROLES],
        members=[
            Member(
                groups[held["group"]]["auth0_org_id"], auth0_user_id(row["login"]), [held["role"]]
            )
            for row in document["users"]
            for held in row.get("roles", [])
        ],
    )


def _clients(client_secret: str, management_secret: str, api: str) -> list[Client]:
    return [
        Client(
            CLIENT_ID,
            "aspencli",
            (Grant.DEVICE_CODE, Grant.AUTHORIZATION_CODE, Grant.REFRESH_TOKEN),
            public=True,
            secret=client_secret,
            callbacks=_CALLBACKS,
            logout_urls=_LOGOUTS,
            login_uri=f"{api}/v2/auth/login",
        ),
        Client(
            MANAGEMENT_CLIENT_ID,
            "The service",
            (Grant.CLIENT_CREDENTIALS,),
            secret=management_secret,
            management_scopes=ALL_MANAGEMENT_SCOPES,
        ),
    ]
