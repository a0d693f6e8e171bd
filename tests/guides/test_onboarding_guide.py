"""The guide to onboarding, compared with the output of its commands on an empty deployment."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from aspen.database.engine import Database
from aspen.local.auth0.store import Seed
from aspen.local.seed.samples import add_places, seeded_places
from tests.conftest import cli_environment
from tests.guides.session import replayed, steady
from tests.local.auth0.lab import (
    CLIENT,
    MANAGEMENT,
    MANAGEMENT_SECRET,
    PRINCIPALS,
    Identity,
    running_identity,
)

GUIDE = Path(__file__).parents[2] / "docs/guides/onboarding.md"
REWRITE = os.environ.get("ASPEN_REWRITE_GUIDES")  # read here, because tests have no such variables
EMPTY: Seed = replace(PRINCIPALS, users=[], organizations=[], members=[])


@pytest.fixture
def identity(tmp_path: Path) -> Iterator[Identity]:
    """Yield a provider that knows nobody."""
    state = tmp_path / "provider" / "state"
    state.parent.mkdir()
    with running_identity(state, seeded=EMPTY) as running:
        yield running


@pytest.fixture
def environment(migrated_db: str, identity: Identity, aspen_home: Path) -> Mapping[str, str]:
    """Return the variables of commands on an empty deployment, which has only locations."""
    database = Database(migrated_db, application_name="tests", writable=True)
    with database.begin() as session:
        add_places(session, seeded_places().items())
    database.dispose()
    return {
        "ASPEN_HOME": str(aspen_home),
        **cli_environment(migrated_db),
        "AUTH0_MANAGEMENT_DOMAIN": identity.issuer,
        "AUTH0_MANAGEMENT_CLIENT_ID": MANAGEMENT,
        "AUTH0_MANAGEMENT_CLIENT_SECRET": MANAGEMENT_SECRET,
        "ASPEN_AUTH_CLIENT_ID_LOCAL": CLIENT,
    }


def test_onboarding_guide_leads_to_three_groups_with_ten_people(
    migrated_db: str, environment: Mapping[str, str], identity: Identity, tmp_path: Path
) -> None:
    work, text = tmp_path / "work", GUIDE.read_text(encoding="utf-8")
    work.mkdir()
    current = replayed(text, work, environment)
    if REWRITE:
        GUIDE.write_text(current, encoding="utf-8")
    else:
        assert steady(current) == steady(text), "make guides writes it anew"
    database = Database(migrated_db, application_name="tests")
    with database.reading() as session:
        for table, number in (("groups", 3), ("users", 10)):
            assert session.scalar(sa.text(f"SELECT count(*) FROM aspen.{table}")) == number
        query = "SELECT auth0_org_id FROM aspen.groups"
        groups = [row.auth0_org_id for row in session.execute(sa.text(query))]
        query = (
            "SELECT u.auth0_user_id, g.auth0_org_id, r.name FROM aspen.user_roles ur JOIN"
            " aspen.users u ON u.id = ur.user_id JOIN aspen.groups g ON g.id = ur.group_id"
            " JOIN aspen.roles r ON r.id = ur.role_id"
        )
        roles = {tuple(row) for row in session.execute(sa.text(query))}
    database.dispose()
    with identity.management() as api:
        provided = {
            (member["user_id"], place, role["name"])
            for place in groups
            for member in api.get(
                f"organizations/{place}/members", params={"fields": "user_id,roles"}
            ).json()
            for role in member["roles"]
        }
    assert provided == roles
    assert len(roles) == 10  # one of them has two, and one was offboarded
