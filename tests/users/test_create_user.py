"""A new user: one transaction, and the result if another writer is faster."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from aspen.database.engine import Database
from aspen.database.models import User, UserRole
from aspencli.errors import ConflictError
from aspencli.users.database import Onboarded, create_user
from aspencli.users.remote import NewUser

ADA = NewUser("Ada Love", "ada@lab.example.org", "auth0|ada", "1", "member")


def _emails(database: Database) -> list[str]:
    with database.reading() as session:
        return list(session.scalars(sa.select(User.email).where(User.id > 11)))


def _race(database: Database, user: User, wanted: NewUser) -> Onboarded:
    """Run our write while another writer's transaction is still uncommitted."""
    outcome: list[Onboarded | Exception] = []

    def write() -> None:
        try:
            outcome.append(create_user(database, wanted))
        except (ConflictError, IntegrityError) as error:
            outcome.append(error)

    ours = threading.Thread(target=write)
    other = Database(database.url, application_name="somebody else", writable=True)
    with other.begin() as session:
        session.add(user)
        session.flush()
        ours.start()
        _wait_for_a_blocked_session(database)
    ours.join()
    other.dispose()
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]


def _wait_for_a_blocked_session(database: Database) -> None:
    waiting = sa.text(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    for _ in range(500):
        with database.reading() as session:
            if session.scalar(waiting):
                return
        threading.Event().wait(0.01)
    pytest.fail("nobody waits")


def test_create_user_is_rolled_back_if_role_fails(seeded: Database) -> None:
    with seeded.begin() as session:
        session.execute(
            sa.text(
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql"
                " AS $$ BEGIN RAISE 'no role today'; END $$;"
                "CREATE TRIGGER refuse BEFORE INSERT ON aspen.user_roles"
                " FOR EACH ROW EXECUTE FUNCTION refuse()"
            )
        )
    with pytest.raises(sa.exc.DBAPIError, match="no role today"):
        create_user(seeded, ADA)
    assert _emails(seeded) == []


def test_concurrent_user_with_same_email_is_a_conflict(seeded: Database) -> None:
    faster = User(name="Other", email=ADA.email, auth0_user_id="auth0|other")
    with pytest.raises(ConflictError) as caught:
        _race(seeded, faster, ADA)
    assert any("Other <ada@lab.example.org> auth0|other" in line for line in caught.value.details)
    assert _emails(seeded) == [ADA.email]


def test_concurrent_identical_user_is_not_an_error(seeded: Database) -> None:
    faster = User(
        name=ADA.name,
        email=ADA.email,
        auth0_user_id=ADA.auth0_user_id,
        roles=[UserRole(group_id=1, role_id=3)],
    )
    outcome = _race(seeded, faster, ADA)
    assert not outcome.created
    assert _emails(seeded) == [ADA.email]


def test_unrelated_integrity_error_is_raised_unchanged(seeded: Database) -> None:
    # This happens after rows were inserted by hand with explicit IDs.
    with seeded.begin() as session:
        session.execute(sa.text("SELECT setval('aspen.users_id_seq', 1)"))
    with pytest.raises(IntegrityError, match="pk_users"):
        create_user(seeded, ADA)


def test_conflict_with_two_users_names_both(seeded: Database) -> None:
    wanted = replace(ADA, email="gadmin@example.org", auth0_user_id="auth0|viewer")
    with pytest.raises(ConflictError) as caught:
        create_user(seeded, wanted)
    named = [line for line in caught.value.details if line.startswith("user ")]
    assert [line.split()[1] for line in named] == ["2", "4"]
