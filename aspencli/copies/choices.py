"""The choices about a copy; light, because the commands need them for their options."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Genomes(StrEnum):
    """The treatment of genomes."""

    KEEP = "keep"
    BLANK = "blank"
    DROP = "drop"


class Trees(StrEnum):
    """The treatment of trees."""

    KEEP = "keep"
    DROP = "drop"


@dataclass(frozen=True)
class Choice:
    """The choices of one copy.

    Attributes:
        scrub: True to mask personal data.
        genomes: The treatment of genomes.
        trees: The treatment of trees, whose files are in S3.
        groups: The IDs of the only groups to copy; empty for all.
        keeps: The e-mail address of the user who is not masked, in lowercase.
    """

    scrub: bool = True
    genomes: Genomes = Genomes.KEEP
    trees: Trees = Trees.KEEP
    groups: tuple[int, ...] = ()
    keeps: str | None = None
