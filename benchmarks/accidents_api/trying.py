"""One renaming of a whole group, and the checks that it ended well."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.accidents_api.gate import Gate, Rules
from benchmarks.accidents_api.site import Site
from tests.cli.commands.renames_lab import tangled, write_mapping

TEMPORARY = "aspencli-temporary"
RENAME = ("samples", "update-public-ids", "--group-id", "1", "--yes", "-f")


class Try:
    """One renaming of the whole group: swaps, cycles, chains.

    Attributes:
        home: The folder with its journals.
    """

    def __init__(self, site: Site, folder: Path, seed: int):
        self.site = site
        self.home = folder / "home"
        self.names = site.renames.names()
        self.rest = site.renames.rest()
        keys = list(self.names)
        random.Random(seed).shuffle(keys)
        shuffled = {key: self.names[key] for key in keys}
        wanted = tangled(shuffled, len(keys))
        self.wanted = {k: f"{v}-{seed}" if v.startswith("new-") else v for k, v in wanted.items()}
        self.mapping = str(write_mapping(folder / "ids.csv", self.wanted))

    def is_done(self) -> None:
        assert self.site.renames.names() == self.names | self.wanted
        assert self.site.renames.rest() == self.rest

    def temporary(self) -> int:
        return sum(name.startswith(TEMPORARY) for name in self.site.renames.names().values())

    @contextmanager
    def gate(self, **rules: Any) -> Iterator[Gate]:
        with Gate(self.site.api.url, Rules(names=self.site.held, **rules)) as gate:
            yield gate
