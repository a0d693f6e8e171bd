"""Write the rows of an undo file as `db.bulk.write_sql.undo` has the database write them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import IO

from aspencli.services.api_renames.journal import Row
from aspencli.services.guards import guard

_HEADER = ("private_identifier", "new_public_identifier", "old_public_identifier", "id")


def write_rows(rows: Iterable[Row], file: IO[bytes]) -> None:
    """Write the header and each row that changes."""
    text = io.TextIOWrapper(file, "utf-8", newline="", write_through=True)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_HEADER)
    for row in rows:
        if row.before != row.after:
            writer.writerow((guard(row.key), guard(row.after), guard(row.before), row.id))
    text.detach()  # Leave the file open.
