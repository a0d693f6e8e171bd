"""``make guides``: updates the guides with the current output of their commands."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from aspen.database.engine import Database
from aspen.local.aws.content import ObjectFolder
from aspen.local.postgres.prepare import prepare
from aspen.local.postgres.server import SUPERUSER, Cluster
from aspen.local.seed import seed_roles
from tests.guides.session import PROFILING, replayed


def main() -> int:
    """Update the guides."""
    with tempfile.TemporaryDirectory(prefix="aspen-guides-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # the server's account needs to pass through
        cluster = Cluster(folder / "data")
        try:
            cluster.up()
            prepare(cluster)
            owner = Database(cluster.url(user=SUPERUSER), writable=True)
            seed_roles(owner, ObjectFolder(folder / "objects"))
            owner.dispose()
            work = folder / "work"
            work.mkdir()
            environment = {
                "ASPEN_HOME": str(folder / "home"),
                "ASPEN_DATABASE_URL_LOCAL": cluster.url(),
            }
            PROFILING.write_text(replayed(PROFILING.read_text(), work, environment))
        finally:
            cluster.reset()
    return 0


if __name__ == "__main__":
    sys.exit(main())
