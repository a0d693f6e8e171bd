"""Known templates: the meaning of their columns, and how they clear values."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from aspencli.errors import BadInputError

AUTO = "auto"
"""Recognize a template by the columns of the file."""
NONE = "none"
"""Read the file as it is."""
_PREFIX = re.compile(r"^(covv|pox|rsv|arbo|flu)_")  # the prefixes of GISAID's databases
_ASIDE = re.compile(r"\s*(?:\([^)]*\)|-\s*optional|\*)\s*$", re.IGNORECASE)


@dataclass(frozen=True)
class Template:
    """A template that laboratories fill in.

    Attributes:
        name: Its name for ``--template``.
        title: Its name in messages.
        columns: The column for each header.
        marks: Sets of headers; a file that has all headers of one set matches this template.
        clearing: Words that clear a value.
        blank: Words that mean no value.
        joined: A column that is joined from several others, and the headers of these.
        labels: The text below each header in a second header row.
    """

    name: str
    title: str
    columns: Mapping[str, str]
    marks: tuple[frozenset[str], ...]
    clearing: tuple[str, ...] = ()
    blank: frozenset[str] = frozenset()
    joined: tuple[str, tuple[str, ...]] | None = None
    labels: Mapping[str, str] = field(default_factory=dict)

    def column_of(self, header: str) -> str | None:
        """Return the column for a header, or None if the template does not have it."""
        return self.columns.get(plain(header))

    def fits(self, headers: Sequence[str]) -> bool:
        """Return True if a file with these headers was made from the template."""
        found = frozenset(map(plain, headers))
        return any(mark <= found for mark in self.marks)

    def is_second_header(self, headers: Sequence[str], record: Sequence[str]) -> bool:
        """Return True if a row contains column labels instead of values."""
        pairs = [
            (self.labels[plain(header)], plain(cell))
            for header, cell in zip(headers, record, strict=False)
            if plain(header) in self.labels
        ]
        return bool(pairs) and all(label == cell for label, cell in pairs)


def plain(header: str) -> str:
    """Return a header in lower case, without the prefixes and remarks that templates add."""
    text = " ".join(header.split()).lower()
    while text != (bare := _ASIDE.sub("", text)):
        text = bare
    return _PREFIX.sub("", text)


_SERVICE = {
    "private id": "private_identifier",
    "current private id": "private_identifier",
    "new private id": "new_private_identifier",
    "public id": "public_identifier",
    "sample name": "sequence_name",
    "collection date": "collection_date",
    "collection location": "location",
    "sequencing date": "sequencing_date",
    "sample is private": "private",
}
_GISAID_LABELS = {
    "virus_name": "virus name",
    "subm_sample_id": "sample id given by the submitting laboratory",
    "collection_date": "collection date",
    "location": "location",
    "host": "host",
    "authors": "authors",
}
_GISAID = {
    "virus_name": "public_identifier",
    "subm_sample_id": "private_identifier",
    "collection_date": "collection_date",
    "location": "location",
    "host": "host",
    "authors": "authors",
}
_NEXTSTRAIN_PLACE = ("region", "country", "division", "location")

TEMPLATES = (
    Template(
        "czgenepi-upload",
        "the service's upload template",
        _SERVICE,
        (frozenset({"sample name", "private id"}), frozenset({"sample name", "sample is private"})),
    ),
    Template(
        "czgenepi-edit",
        "the service's edit template",
        _SERVICE,
        (
            frozenset({"current private id"}),
            frozenset({"new private id"}),
            frozenset({"sample is private", "collection location"}),
            frozenset({"sample is private", "public id"}),
        ),
        clearing=("Delete", "delete", "DELETE"),
    ),
    Template(
        "gisaid",
        "a GISAID table",
        _GISAID | {label: _GISAID[code] for code, label in _GISAID_LABELS.items()},
        (
            frozenset({"virus_name"}),
            frozenset({"virus name", "collection date"}),
            frozenset({"virus name", "accession id"}),
        ),
        labels=_GISAID_LABELS | {label: code for code, label in _GISAID_LABELS.items()},
    ),
    Template(
        "nextstrain",
        "Nextstrain metadata",
        {
            "strain": "public_identifier",
            "date": "collection_date",
            "host": "host",
            "authors": "authors",
        },
        (
            frozenset({"strain", "date"}),
            frozenset({"strain", "region", "country"}),
            frozenset({"strain", "virus"}),
            frozenset({"strain", "gisaid_epi_isl"}),
            frozenset({"strain", "genbank_accession"}),
        ),
        blank=frozenset({"?"}),
        joined=("location", _NEXTSTRAIN_PLACE),
    ),
)
NAMES = tuple(template.name for template in TEMPLATES)


def choose(name: str, headers: Sequence[str]) -> Template | None:
    """Return the template with this name, or for ``auto`` the one that matches the headers.

    Raises:
        BadInputError: There is no template of that name, or the file has none of its columns.
    """
    if name == NONE:
        return None
    if name == AUTO:
        return next((template for template in TEMPLATES if template.fits(headers)), None)
    found = next((template for template in TEMPLATES if template.name == name), None)
    if found is None:
        raise BadInputError(
            f"Invalid value for --template: {name!r}",
            hint=f"Choose one of: {', '.join((AUTO, NONE, *NAMES))}.",
        )
    if not any(map(found.column_of, headers)):
        raise BadInputError(
            f"Invalid value for --template: the file has no column of {found.title}",
            hint="Remove --template, or map the columns with --map.",
            details=[f"found: {', '.join(headers)}"],
        )
    return found
