"""The masking rules: what becomes of each column of each table in a scrubbed copy.

They are data, in ``rules.toml``, so that they can be reviewed by people who do not read Python.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from aspencli.errors import RefusedError
from aspencli.text import counted

Rule = str | Mapping[str, "Rule"]
"""A rule as it is written, or those of the keys of a JSON object."""
SIMPLE = frozenset({"keep", "null", "hash", "shift", "drop", "genome", "strain"})
OF_TREES = frozenset({"keep", "shift", "genome", "strain", "number", "day", "accession", "place"})
"""The rules for the files of trees, besides fake values and lists of words."""
FAKE = "fake "
ONE_OF = "one of "


@dataclass(frozen=True)
class TableRules:
    """The rules of one table.

    Attributes:
        columns: The rule of each column.
        rows: The condition for rows of chosen groups; None if all rows are kept.
        without_genomes: The condition for rows to keep without genomes; None if all are.
        without_trees: The condition for rows to keep without trees; None if all are.
        refers: The set of IDs that a nullable reference is limited to, by column.
    """

    columns: Mapping[str, Rule]
    rows: str | None
    without_genomes: str | None
    without_trees: str | None
    refers: Mapping[str, str]


@dataclass(frozen=True)
class TreeRules:
    """The rules for the files of trees: those of the keys of each kind of object in them.

    Attributes:
        references: The names of strains that genomes are compared with, which are public.
        genes: A pattern for the names of genes.
        document: The keys at the top, besides ``meta`` and ``tree``.
        meta: Those of the description of the tree.
        defaults: Those of the display settings.
        node: Those of a node itself.
        attributes: Those of the attributes of a node that have no value of their own.
        traits: The values of the other attributes, and of colors.
        labels: Those of the labels of branches.
    """

    references: frozenset[str] = frozenset()
    genes: str = ""
    document: Mapping[str, str] = field(default_factory=dict)
    meta: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, str] = field(default_factory=dict)
    node: Mapping[str, str] = field(default_factory=dict)
    attributes: Mapping[str, str] = field(default_factory=dict)
    traits: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Rules:
    """All rules.

    Attributes:
        tables: Those of each table.
        fakes: The form of each kind of fake value.
        prefixes: The beginnings of identifiers that a hash keeps.
        sets: The queries for IDs that conditions refer to, by name.
        tree: Those for the files of trees.
        digest: The SHA-256 of their text, in hexadecimal.
    """

    tables: Mapping[str, TableRules]
    fakes: Mapping[str, str]
    prefixes: tuple[str, ...]
    sets: Mapping[str, str]
    tree: TreeRules
    digest: str

    def missing(self, columns: Iterable[tuple[str, str]]) -> list[str]:
        """Return the columns, as pairs of table and name, that have no rule."""
        return [
            f"{table}.{column}"
            for table, column in columns
            if table not in self.tables or column not in self.tables[table].columns
        ]

    def require(self, columns: Iterable[tuple[str, str]]) -> None:
        """Check that every column has a rule.

        Raises:
            RefusedError: One has none, so it is not known if it holds personal data.
        """
        if missing := self.missing(columns):
            raise RefusedError(
                f"{counted(len(missing), 'column')} of this database "
                f"{'has' if len(missing) == 1 else 'have'} no masking rule; nothing was written.",
                hint="Add a rule for each to aspencli/copies/rules.toml. Until then, no scrubbed "
                "copy is possible.",
                details=missing,
            )

    def expand(self, condition: str, groups: Iterable[int]) -> str:
        """Return a condition with its sets filled in, for the IDs of groups."""
        known = {"groups": ", ".join(map(str, groups))}
        for name, query in self.sets.items():  # each refers only to those before it
            known[name] = query.format(**known)
        return condition.format(**known)


@cache
def load_rules() -> Rules:
    """Return the program's own rules."""
    return read_rules((files("aspencli.copies") / "rules.toml").read_bytes())


def read_rules(text: bytes) -> Rules:
    """Return the rules in a text.

    Raises:
        ValueError: One of them is not known.
    """
    document = tomllib.loads(text.decode())
    fakes: dict[str, str] = document["fakes"]
    tables = {name: _table(name, table, fakes) for name, table in document["tables"].items()}
    digest = hashlib.sha256(text).hexdigest()
    tree = _tree(document.get("tree", {}), fakes)
    return Rules(tables, fakes, tuple(document["prefixes"]), document["sets"], tree, digest)


def _table(name: str, table: Mapping[str, Any], fakes: Mapping[str, str]) -> TableRules:
    for column, rule in table["columns"].items():
        _check(f"{name}.{column}", rule, fakes)
    genomes = table.get("without_genomes") or ("false" if table.get("genome") else None)
    trees = table.get("without_trees") or ("false" if table.get("tree") else None)
    refers = table.get("refers", {})
    return TableRules(table["columns"], table.get("rows"), genomes, trees, refers)


def _tree(sections: Mapping[str, Any], fakes: Mapping[str, str]) -> TreeRules:
    given = dict(sections)
    references, genes = frozenset(given.pop("references", ())), given.pop("genes", "")
    for name, rules in given.items():
        for key, rule in rules.items():
            known = rule in OF_TREES or rule.startswith(ONE_OF)
            if not known and rule.removeprefix(FAKE) not in fakes:
                raise ValueError(f"unknown masking rule of tree.{name}.{key}: {rule!r}")
    return TreeRules(references, genes, **given)


def _check(place: str, rule: Rule, fakes: Mapping[str, str]) -> None:
    if isinstance(rule, Mapping):
        for key, inner in rule.items():
            _check(f"{place}.{key}", inner, fakes)
    elif rule not in SIMPLE and rule.removeprefix(FAKE) not in fakes:
        raise ValueError(f"unknown masking rule of {place}: {rule!r}")
