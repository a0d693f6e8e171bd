"""A bulk rename the way the live service changes samples: each one as an ORM object.

Run as a separate process: ``orm.py MAPPING``.
"""

from __future__ import annotations

import csv
import os
import sys
from pathlib import Path

import sqlalchemy as sa

from aspen.database.engine import Database
from aspen.database.models import Sample


def rename(database: Database, group: int, mapping: Path) -> None:
    """Select the samples, set their attributes, and let the session detect the changes."""
    with mapping.open(newline="") as file:
        wanted = {
            row["private_identifier"]: row["public_identifier"] for row in csv.DictReader(file)
        }
    query = sa.select(Sample).where(
        Sample.submitting_group_id == group, Sample.private_identifier.in_(wanted)
    )
    with database.begin() as session:
        for sample in session.scalars(query):
            sample.public_identifier = wanted[sample.private_identifier]


if __name__ == "__main__":
    address = os.environ["ASPEN_DATABASE_URL_LOCAL"]
    unlimited = Database(address, writable=True).with_limits(statement_ms=0)
    rename(unlimited, 1, Path(sys.argv[1]))
