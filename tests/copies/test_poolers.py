"""Dumps and copies through PgBouncer, in each of its modes and with a single server connection."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from aspencli.copies.choices import Choice
from aspencli.copies.rules import load_rules
from aspencli.copies.snapshot import open_snapshot
from tests.conftest import Server
from tests.copies.lab import MARK, Lab, ask, content, opened, text_of, unpacked
from tests.pooler import MODES, Pooler, find_pgbouncer

pytestmark = [
    pytest.mark.unpooled("they have poolers of their own"),
    pytest.mark.skipif(find_pgbouncer() is None, reason="pgbouncer is not installed"),
]


@pytest.mark.parametrize("mode", MODES)
def test_dump_and_copy_through_a_pooler_are_masked_and_complete(
    mode: str, lab: Lab, postgres: Server, server_folder: Path
) -> None:
    folder = server_folder / mode.replace(",", "-")
    with Pooler(folder, make_url(postgres.url("postgres")), mode) as pooler:
        direct = lab.source
        lab.source = pooler.url(make_url(direct)).render_as_string(False)
        assert MARK.encode() not in unpacked(lab.dump())
        lab.ok("db", "copy", "--from", "source", "--to", "staging", "--confirm", "staging")
        assert MARK not in text_of(lab.target)
        assert ask(lab.target, "SELECT count(*) FROM aspen.samples") == 1_025
        lab.source = direct


@pytest.mark.parametrize("mode", MODES)
def test_snapshot_behind_a_pooler_is_read_by_one_connection(
    mode: str, lab: Lab, postgres: Server, server_folder: Path
) -> None:
    folder = server_folder / f"one-{mode.replace(',', '-')}"
    with Pooler(folder, make_url(postgres.url("postgres")), mode) as pooler:
        database = opened(pooler.url(make_url(lab.source)).render_as_string(False))
        with open_snapshot(database.derived(writable=False), load_rules(), Choice()) as snapshot:
            assert snapshot.workers == 1


@pytest.mark.parametrize("mode", MODES)
def test_restore_through_a_pooler_is_refused_with_the_reason(
    mode: str, lab: Lab, postgres: Server, server_folder: Path
) -> None:
    dump = lab.dump()
    before = content(lab.target)
    folder = server_folder / f"to-{mode.replace(',', '-')}"
    with Pooler(folder, make_url(postgres.url("postgres")), mode) as pooler:
        direct = lab.target
        lab.target = pooler.url(make_url(direct)).render_as_string(False)
        refused = lab.restore(dump)
        lab.target = direct
    assert refused.code == 3
    assert "pooler" in refused.err
    assert content(lab.target) == before
