"""``make guides``: updates the guides with the current output of their commands."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from db.database import Database
from local.aws.objects import ObjectFolder
from local.postgres import SUPERUSER, Cluster
from local.prepare import prepare
from local.seed import seed_roles
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
