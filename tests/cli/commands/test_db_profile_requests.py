"""``db profile --request``: a request served in the command's own process."""

from __future__ import annotations

import json
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.orm import selectinload

from aspen.database.engine import Database
from aspen.database.models import Sample, User
from tests.cli.commands.profile_lab import Profiling


def test_request_is_served_in_process_and_its_queries_are_shown(
    profile: Profiling, seeded: Database
) -> None:
    with seeded.reading() as session:
        user = session.scalars(
            sa.select(User).options(selectinload(User.groups)).where(User.groups.any()).limit(1)
        ).one()
        group = user.groups[0].id
        assert session.scalar(sa.select(sa.func.count(Sample.id)))
    path = f"GET /v2/orgs/{group}/pathogens/SC2/samples/"
    done = profile("--request", path, "--as", user.email)
    assert done.code == 0, done.err
    assert f"{path}: 200" in done.err
    document = done.json
    assert document["totals"]["queries"] >= 3
    assert any("/api/" in one["file"] and one["line"] for one in document["statements"])
    nobody = profile("--request", path)
    assert nobody.code == 1
    assert ": 401" in nobody.err


def test_writing_request_is_rolled_back_unless_committed(
    profile: Profiling, seeded: Database, tmp_path: Path
) -> None:
    def known() -> str | None:
        with seeded.reading() as session:
            return session.scalars(sa.select(User.gisaid_submitter_id).where(User.id == 1)).one()

    body = tmp_path / "body.json"
    body.write_text(json.dumps({"gisaid_submitter_id": "changed"}))
    words = ("--request", "PUT /v2/users/me", "--as", "1", "--body", str(body))
    before = known()
    tried = profile("--write", *words)
    assert tried.code == 0, tried.err
    assert any(one["fingerprint"].startswith("UPDATE") for one in tried.json["statements"])
    assert all("/api/" in one["file"] for one in tried.json["statements"])
    assert known() == before
    kept = profile("--write", "--commit", "--yes", *words)
    assert kept.code == 0, kept.err
    assert known() == "changed"
