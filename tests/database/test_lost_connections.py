"""Connections that break while a cursor is open."""

from __future__ import annotations

import subprocess
import sys

_SCRIPT = """
import sys
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from aspen.database.engine import Database

database = Database(sys.argv[1])
rows = sa.text("SELECT pg_backend_pid() FROM generate_series(1, 100000)")
try:
    with database.engine.connect() as connection:
        found = connection.execution_options(yield_per=10).scalars(rows)
        with database.engine.connect() as other:
            other.scalar(sa.text("SELECT pg_terminate_backend(:pid)"), {"pid": next(found)})
        found.close()
        connection.scalar(sa.text("SELECT 1"))
except DBAPIError as error:
    sys.stdout.write(f"told: {error.connection_invalidated}")
"""


def test_lost_connection_raises_error_without_other_output(migrated_db: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, migrated_db], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("told: True", "")
