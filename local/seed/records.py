"""Code shared by generated samples and imported records: complete samples, written with COPY."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from aspencli.errors import NotFoundError
from db.bulk.copying import copy_in, copy_line
from db.models import Group, Pathogen, Role, User, UserRole

PATHOGEN_SLUG = "SC2"
PUBLIC_PREFIX = "hCoV-19"
"""The prefix of GISAID's names for SARS-CoV-2 genomes."""
ORGANISM = "Severe acute respiratory syndrome coronavirus 2"
TOUCHED = (
    "samples",
    "entities",
    "pathogen_genomes",
    "uploaded_pathogen_genomes",
    "sample_lineages",
    "sample_qc_metrics",
    "sample_mutations",
    "accessions",
    "locations",
)


@dataclass(frozen=True)
class RejectedRow:
    """A line of a file that was rejected.

    Attributes:
        line: The line number; the header is line 1.
        column: The invalid column; empty if the line as a whole is invalid.
        reason: The reason, in words.
    """

    line: int
    column: str
    reason: str


@dataclass(frozen=True)
class Owner:
    """The group that samples are seeded into, with the values that their rows need.

    Attributes:
        group: The group's ID.
        prefix: The group's prefix.
        laboratory: The laboratory recorded as the collector of the samples.
        uploader: The ID of the user recorded as the uploader.
        pathogen: The ID of SARS-CoV-2.
    """

    group: int
    prefix: str
    laboratory: str
    uploader: int
    pathogen: int


def owner_of(session: Session, group: int) -> Owner:
    """Return a group as an owner, locked against other seeding until the transaction ends.

    Raises:
        NotFoundError: The group does not exist, or none of its users may upload.
    """
    found = session.execute(
        sa.select(Group.prefix, sa.func.coalesce(Group.submitting_lab, Group.name))
        .where(Group.id == group)
        .with_for_update(key_share=True)
    ).one_or_none()
    if found is None:
        raise NotFoundError(
            f"there is no group {group}", hint="Make it first, or seed the test groups."
        )
    uploader = session.scalar(
        sa.select(sa.func.min(User.id))
        .join(UserRole)
        .join(Role)
        .where(UserRole.group_id == group, Role.name.in_(("admin", "member")))
    )
    if uploader is None:
        raise NotFoundError(
            f"group {group} has no admin and no member to upload samples",
            hint="Add a user to it first.",
        )
    pathogen = session.scalars(sa.select(Pathogen.id).where(Pathogen.slug == PATHOGEN_SLUG)).one()
    return Owner(group, found[0], found[1], uploader, pathogen)


def copy_rows(
    session: Session, table: str, columns: Sequence[str], rows: Iterable[Sequence[object]]
) -> None:
    """Append rows to a table with COPY, in the session's transaction."""
    # Build the lines first: the driver turns any exception raised while it reads, even Ctrl-C,
    # into an error of its own.
    lines = [copy_line(*row) for row in rows]
    copy_in(session.connection(), f"{table} ({', '.join(columns)})", lines)


def next_ids(session: Session, sequence: str, count: int) -> list[int]:
    """Return new values of a sequence in the schema ``aspen``, in ascending order."""
    statement = sa.text("SELECT nextval(CAST(:name AS regclass)) FROM generate_series(1, :count)")
    return list(session.scalars(statement, {"name": f"aspen.{sequence}", "count": count}))


def analyse(session: Session) -> None:
    """Update the planner's statistics for the new rows at once."""
    session.execute(sa.text("ANALYZE " + ", ".join(f"aspen.{table}" for table in TOUCHED)))
