"""The permission table, as filters on a real database."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from aspen.api.authz import Access, Action, load_access
from aspen.api.database import make_engine, make_sessions
from aspen.api.settings import DRIVER
from aspen.database.engine import Database
from aspen.database.models import Sample, User
from aspen.local.seed import seed_samples
from tests.conftest import Server


@pytest.fixture(scope="module")
def lab(postgres: Server, _seeded_template: str) -> Iterator[Database]:
    """Yield a database with 60 samples in group 1, 20 in group 2, and 5 in group 3."""
    with postgres.cloned(_seeded_template) as database:
        seed_samples(database, 20, group=2)
        seed_samples(database, 5, group=3)
        yield database


def ask(lab: Database, question: Callable[[AsyncSession], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        engine = make_engine(lab.url.set(drivername=DRIVER))
        async with make_sessions(engine)() as session:
            answer = await question(session)
        await engine.dispose()
        return answer

    return asyncio.run(run())


async def access_of(session: AsyncSession, principal: str, group: int) -> Access | None:
    user = (
        await session.scalars(sa.select(User).where(User.auth0_user_id == f"auth0|{principal}"))
    ).one()
    return await load_access(session, user, group)


def counted(lab: Database, principal: str, group: int, action: Action) -> dict[int, int]:
    """Return the number of samples in each group that a principal may act on."""

    async def count(session: AsyncSession) -> dict[int, int]:
        access = await access_of(session, principal, group)
        assert access is not None
        rows = await session.execute(
            sa.select(Sample.submitting_group_id, sa.func.count())
            .where(access.samples(action))
            .group_by(Sample.submitting_group_id)
        )
        return {row[0]: row[1] for row in rows}

    found: dict[int, int] = ask(lab, count)
    return found


def shared_of(lab: Database, group: int) -> int:
    with lab.reading() as session:
        query = sa.select(sa.func.count()).where(
            Sample.submitting_group_id == group, ~Sample.private
        )
        return session.scalars(query).one()


@pytest.mark.parametrize("principal", ["gadmin", "member", "sysmember", "multi"])
@pytest.mark.parametrize(
    "action", [Action.READ, Action.READ_PRIVATE, Action.SEQUENCES, Action.WRITE]
)
def test_admins_and_members_have_full_access_to_group_samples(
    lab: Database, principal: str, action: Action
) -> None:
    assert counted(lab, principal, 1, action) == {1: 60}


def test_viewer_can_only_read_shared_samples(lab: Database) -> None:
    shared = shared_of(lab, 1)
    assert 0 < shared < 60
    assert counted(lab, "viewer", 1, Action.READ) == {1: shared}
    for action in (Action.READ_PRIVATE, Action.SEQUENCES, Action.WRITE):
        assert counted(lab, "viewer", 1, action) == {}


@pytest.mark.parametrize("principal", ["g2admin", "g2member", "multi"])
def test_viewer_grant_gives_group_read_access_to_shared_samples(
    lab: Database, principal: str
) -> None:
    assert counted(lab, principal, 2, Action.READ) == {1: shared_of(lab, 1), 2: 20}
    assert counted(lab, principal, 2, Action.WRITE) == {2: 20}
    assert counted(lab, principal, 2, Action.SEQUENCES) == {2: 20}


def test_member_grant_gives_group_full_access_to_samples(lab: Database) -> None:
    for action in (Action.READ, Action.READ_PRIVATE, Action.SEQUENCES, Action.WRITE):
        assert counted(lab, "g3member", 3, action) == {2: 20, 3: 5}


@pytest.mark.parametrize(
    ("principal", "group"),
    [
        ("nogroup", 1),
        ("sysadmin", 1),
        ("g2admin", 1),
        ("g3admin", 2),
    ],
)
def test_user_outside_group_has_no_role_in_it(lab: Database, principal: str, group: int) -> None:
    access: Access = ask(lab, lambda session: access_of(session, principal, group))
    assert not access.own
    assert not any(
        access.may(action)
        for action in (
            Action.READ,
            Action.CREATE_SAMPLE,
            Action.CREATE_PHYLO_RUN,
            Action.INVITE_MEMBERS,
        )
    )


def test_access_to_unknown_group_is_none(lab: Database) -> None:
    assert ask(lab, lambda session: access_of(session, "gadmin", 99)) is None


@pytest.mark.parametrize(
    ("principal", "allowed"),
    [
        ("gadmin", {"read", "create_sample", "create_phylorun", "invite_members"}),
        ("member", {"read", "create_sample", "create_phylorun"}),
        ("viewer", set()),
    ],
)
def test_each_role_permits_its_actions_in_group(
    lab: Database, principal: str, allowed: set[str]
) -> None:
    access: Access = ask(lab, lambda session: access_of(session, principal, 1))
    asked = (
        Action.READ,
        Action.CREATE_SAMPLE,
        Action.CREATE_PHYLO_RUN,
        Action.INVITE_MEMBERS,
    )
    assert {str(action) for action in asked if access.may(action)} == allowed
