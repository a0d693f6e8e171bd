"""``python -m tests.workflows.engine.run_worker DATABASE FOLDER [ENDPOINT]``: run a worker."""

from __future__ import annotations

import sys
from pathlib import Path

from aspen.workflows.engine.worker import Setting, main
from aspen.workflows.surroundings import Surroundings


def run() -> int:
    database, folder, *endpoint = sys.argv[1:]
    around = Surroundings(database, "genepi-db-data", endpoint=endpoint[0] if endpoint else None)
    return main(Setting(around, Path(folder)))


if __name__ == "__main__":
    sys.exit(run())
