"""The names in trees: those of samples are masked, and those of public strains stay."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aspencli.copies.rules import Rules

_BATCH = 500  # names of one query
# `aspencli.copies.masking` does the same for columns.
_PUBLIC = """
SELECT strain FROM aspen.public_repository_metadata
 WHERE pathogen_id = %(pathogen)s AND strain = ANY(%(names)s)
UNION SELECT strain FROM aspen.gisaid_metadata WHERE strain = ANY(%(names)s)
"""
_LINKED = """
SELECT s.public_identifier, s.private_identifier
  FROM aspen.phylo_tree_samples l JOIN aspen.samples s ON s.id = l.sample_id
 WHERE l.phylo_tree_id = %(tree)s
"""
_OF_GROUP = """
SELECT public_identifier FROM aspen.samples
 WHERE submitting_group_id = %(group)s AND public_identifier = ANY(%(names)s)
UNION SELECT private_identifier FROM aspen.samples
 WHERE submitting_group_id = %(group)s AND private_identifier = ANY(%(names)s)
"""


@dataclass(frozen=True)
class SourceTree:
    """A tree of the source.

    Attributes:
        id: Its ID, which the copy has too.
        bucket: The bucket with its file.
        key: The key of its file.
        group: The ID of the group that it belongs to.
    """

    id: int
    bucket: str
    key: str
    pathogen: int
    group: int | None


@dataclass(frozen=True)
class KnownNames:
    """The names in a tree that are known.

    Attributes:
        own: Those of samples.
        public: Those of public strains that are no samples of the tree's group, or linked to it.
    """

    own: Collection[str]
    public: Collection[str]


class Namer:
    """Look-ups of names, each as they are written in a tree.

    Args:
        rules: The masking rules.
        ask: Runs a query with parameters, and returns the rows.
    """

    def __init__(self, rules: Rules, ask: Callable[[str, dict[str, Any]], Iterable[Sequence[Any]]]):
        self._rules = rules
        self._ask = ask

    def known(self, tree: SourceTree, names: Collection[str]) -> KnownNames:
        """Return what is known of the names in a tree."""
        linked = [name for row in self._ask(_LINKED, {"tree": tree.id}) for name in row]
        samples = {*linked, *map(self._bare, linked)}
        own = {name for name in names if not samples.isdisjoint(self._forms(name))}
        public: set[str] = set()
        for some in _batches(name for name in names if name not in own and _can_be_stored(name)):
            forms = {name: self._forms(name) for name in some}
            listed = sorted({form for each in forms.values() for form in each})
            values = {"names": listed, "group": tree.group, "pathogen": tree.pathogen}
            theirs = {row[0] for row in self._ask(_OF_GROUP, values)}
            strains = {row[0] for row in self._ask(_PUBLIC, values)}
            own |= {name for name, each in forms.items() if not theirs.isdisjoint(each)}
            public |= {name for name, each in forms.items() if not strains.isdisjoint(each)}
        references = {
            name for name in names if not self._rules.tree.references.isdisjoint(self._forms(name))
        }
        return KnownNames(own, (public | references) - own)

    def _forms(self, name: str) -> frozenset[str]:
        """Return a name with and without each prefix."""
        bare = self._bare(name)
        return frozenset({name, bare, *(prefix + bare for prefix in self._rules.prefixes)})

    def _bare(self, name: str) -> str:
        for prefix in self._rules.prefixes:
            if name[: len(prefix)].lower() == prefix.lower():
                return name[len(prefix) :]
        return name


def _batches(names: Iterable[str]) -> Iterator[list[str]]:
    waiting = iter(names)
    while some := list(islice(waiting, _BATCH)):
        yield some


def _can_be_stored(name: str) -> bool:
    """Return True if a text of PostgreSQL can have all characters of a name."""
    return "\0" not in name and not any("\ud800" <= each <= "\udfff" for each in name)
