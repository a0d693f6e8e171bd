"""``python -m aspen.local.postgres --home D``: start PostgreSQL, also after a crash."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from aspen.local.postgres.server import Cluster
from aspencli.errors import AspenError


def main() -> int:
    """Start PostgreSQL; return the exit code, 0 if it is running."""
    parser = argparse.ArgumentParser(prog="python -m aspen.local.postgres", description=__doc__)
    parser.add_argument("--home", type=Path, required=True, help="folder of the deployment")
    try:
        started = Cluster(parser.parse_args().home).up()
    except AspenError as error:
        lines = [error.message, *error.details]
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        return error.exit_code
    notes = [*started.notes, *(["recovered after a crash"] if started.repaired else [])]
    sys.stdout.write("".join(f"{note}\n" for note in [*notes, f"ready on port {started.port}"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
