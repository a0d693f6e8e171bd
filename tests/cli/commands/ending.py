"""The result of a command."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Ended:
    """The result of a command: its exit code, and its output on each stream."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def tsv(self) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(self.out), dialect="excel-tab"))

    @property
    def ids(self) -> list[int]:
        return [int(row["id"]) for row in self.tsv]
