"""Masks for the files of trees, by the same rules as for columns, and with the same key.

Only what has a rule stays. Whether a name, a place, or an accession is public depends on the
database, so the names are collected first; see `aspencli.copies.names`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache, partial
from math import isfinite
from typing import TYPE_CHECKING, Any

from aspencli.copies.choices import Genomes
from aspencli.copies.rules import FAKE, ONE_OF, TreeRules
from aspencli.copies.tree_json import Rewriting, UnusableTreeError, not_a_tree

if TYPE_CHECKING:
    from aspencli.copies.hashing import Hashes
    from aspencli.copies.names import KnownNames
    from aspencli.copies.rules import Rules

MOST_NAMES = 200_000
"""The most tips of a tree that is copied; their names are in memory."""
_INNER = re.compile(r"NODE_\d+", re.ASCII)
_MUTATIONS, _LABELS = "mutations", "labels"
_ANNOTATION = ("start", "end")
_STRANDS, _TYPES = frozenset({"+", "-", "?", "."}), frozenset({"CDS", "source", "gene"})
_COLORING_TYPES = frozenset({"categorical", "continuous", "ordinal", "boolean", "temporal"})
_COLOR = re.compile(r"#[0-9A-Fa-f]{3,8}")
_OF_NODES = frozenset({"", "accession", "day"})  # rules whose result depends on the node
_CACHED = 2_000  # masks of one kind
_UNKNOWN = frozenset({"", "?"})
_PAIR = 2  # a value and its color
_OWN_COLORINGS = frozenset({"gt"})  # Auspice's, of the genotype


class NameCollector(Rewriting):
    """The names of a tree; nothing is written.

    Attributes:
        names: The names.
    """

    def __init__(self, rules: TreeRules):
        self._keys = [key for key, rule in rules.node.items() if rule == "strain"]
        self._traits = [key for key, rule in rules.traits.items() if rule == "strain"]
        self.names: set[str] = set()

    def top(self, key: str, value: Any) -> dict[str, Any]:
        """Check the kind of a member."""
        if key == "meta" and not isinstance(value, dict):
            raise not_a_tree()
        return {}

    def node(self, own: Mapping[str, Any], *, is_tip: bool, depth: int) -> dict[str, Any]:  # noqa: ARG002
        """Collect the names of a node."""
        attributes = own.get("node_attrs")
        found = [own.get(key) for key in self._keys]
        if isinstance(attributes, dict):
            traits = [attributes.get(key) for key in self._traits]
            found += [each.get("value") for each in traits if isinstance(each, dict)]
        self.names.update(
            name for name in found if isinstance(name, str) and not _INNER.fullmatch(name)
        )
        if len(self.names) > MOST_NAMES:
            raise UnusableTreeError(f"it has more than {MOST_NAMES:,} names")
        return {}


class GenomeRemoval(Rewriting):
    """The removal of what belongs to genomes from a tree that is not masked."""

    def __init__(self, rules: TreeRules):
        self._rules = rules

    def top(self, key: str, value: Any) -> dict[str, Any]:
        """Return a member, unless it is part of a genome."""
        return {} if self._rules.document.get(key) == "genome" else {key: value}

    def node(self, own: Mapping[str, Any], *, is_tip: bool, depth: int) -> dict[str, Any]:  # noqa: ARG002
        """Return the members of a node without mutations."""
        branch = own.get("branch_attrs")
        if not isinstance(branch, dict):
            return dict(own)
        kept = {key: value for key, value in branch.items() if key != _MUTATIONS}
        if isinstance(labels := kept.get(_LABELS), dict):
            rules = self._rules.labels
            kept[_LABELS] = {k: v for k, v in labels.items() if rules.get(k) != "genome"}
        return {**own, "branch_attrs": kept}


class TreeMasking(Rewriting):
    """The masking of a tree.

    Args:
        rules: The masking rules.
        hashes: The key of the copy.
        genomes: The treatment of genomes.
        known: The names that are known.
        places: The names of all places in the database.
    """

    def __init__(
        self,
        rules: Rules,
        hashes: Hashes,
        genomes: Genomes,
        known: KnownNames,
        places: Collection[str],
    ):
        self._rules = rules.tree
        self._gene = re.compile(rules.tree.genes, re.ASCII)
        self._hashes = hashes
        self._genomes = genomes
        self._known = known
        self._places = places
        self._name = ""  # of the tip
        self._masks: dict[str, Callable[[Any], Any]] = {}

    # The description of the tree

    def top(self, key: str, value: Any) -> dict[str, Any]:
        """Return the masked form of a member of the document."""
        if key == "meta":
            return {key: self._meta(value)}
        return self._by_rule(self._rules.document, {key: value})

    def _meta(self, meta: Mapping[str, Any]) -> dict[str, Any]:
        given = dict(meta)
        lists = {
            "genome_annotations": self._annotations(given.pop("genome_annotations", None)),
            "colorings": self._colorings(given.pop("colorings", None)),
            "geo_resolutions": self._resolutions(given.pop("geo_resolutions", None)),
            "filters": self._filters(given.pop("filters", None)),
            "display_defaults": self._defaults(given.pop("display_defaults", None)),
        }
        masked = self._by_rule(self._rules.meta, given)
        return masked | {key: value for key, value in lists.items() if value}

    def _annotations(self, given: Any) -> dict[str, Any]:
        """Return the positions of genes, which are those of the reference."""
        found = {}
        for gene, about in _items(given):
            if not self._gene.fullmatch(gene) or not isinstance(about, dict):
                continue
            kept = {key: about[key] for key in _ANNOTATION if _is_number(about.get(key))}
            for key, words in (("strand", _STRANDS), ("type", _TYPES)):
                if (word := _single(words, about.get(key))) is not None:
                    kept[key] = word
            if isinstance(segments := about.get("segments"), list):
                kept["segments"] = [
                    {key: part[key] for key in _ANNOTATION if _is_number(part.get(key))}
                    for part in segments
                    if isinstance(part, dict)
                ]
            found[gene] = kept
        return found

    def _colorings(self, given: Any) -> list[dict[str, Any]]:
        found = []
        for one in _dicts(given):
            key = one.get("key")
            if not isinstance(key, str) or not (self._has_rule(key) or key in _OWN_COLORINGS):
                continue
            kind = _single(_COLORING_TYPES, one.get("type")) or "categorical"
            kept: dict[str, Any] = {"key": key, "title": _title(key), "type": kind}
            if scale := self._scale(key, one.get("scale")):
                kept["scale"] = scale
            found.append(kept)
        return found

    def _scale(self, key: str, given: Any) -> list[list[Any]]:
        rule = self._rules.traits.get(key, "")
        if rule in _OF_NODES or not isinstance(given, list):
            return []
        pairs = [entry for entry in given if isinstance(entry, list) and len(entry) == _PAIR]
        colored = [
            (value, color)
            for value, color in pairs
            if isinstance(color, str) and _COLOR.fullmatch(color)
        ]
        masked = [(self._masked(rule, value), color) for value, color in colored]
        return [[value, color] for value, color in masked if value is not None]

    def _resolutions(self, given: Any) -> list[dict[str, Any]]:
        found = []
        for one in _dicts(given):
            key = one.get("key")
            if not isinstance(key, str) or self._rules.traits.get(key) != "place":
                continue
            demes = {}
            for place, at in _items(one.get("demes")):
                known = place in self._places and isinstance(at, dict)
                if not known:  # where an unknown place is would tell its name
                    continue
                demes[place] = {
                    axis: at[axis] for axis in ("latitude", "longitude") if _is_number(at.get(axis))
                }
            found.append({"key": key, "title": _title(key), "demes": demes})
        return found

    def _filters(self, given: Any) -> list[str]:
        listed = given if isinstance(given, list) else ()
        return [key for key in listed if isinstance(key, str) and self._has_rule(key)]

    def _defaults(self, given: Any) -> dict[str, Any]:
        if not isinstance(given, dict):
            return {}
        rest = {key: given[key] for key in given if key not in {"color_by", "geo_resolution"}}
        kept = self._by_rule(self._rules.defaults, rest)
        for key in ("color_by", "geo_resolution"):
            if isinstance(given.get(key), str) and self._has_rule(given[key]):
                kept[key] = given[key]
        # Most nodes have no date any more.
        if "distance_measure" in given:
            kept["distance_measure"] = "div"
        return kept

    def _has_rule(self, trait: str) -> bool:
        return trait in self._rules.traits

    # Nodes

    def node(self, own: Mapping[str, Any], *, is_tip: bool, depth: int) -> dict[str, Any]:
        """Return the masked members of a node."""
        name = own.get("name")
        self._name = name if is_tip and isinstance(name, str) else ""
        given = {key: own[key] for key in own if key not in {"node_attrs", "branch_attrs"}}
        masked = self._by_rule(self._rules.node, given)
        if "node_attrs" in own:
            masked["node_attrs"] = self._attributes(own["node_attrs"], depth)
        if isinstance(own.get("branch_attrs"), dict):
            masked["branch_attrs"] = self._branch(own["branch_attrs"])
        return masked

    def _attributes(self, given: Any, depth: int) -> dict[str, Any]:
        if not isinstance(given, dict):
            return {}
        single = self._rules.attributes
        masked = self._by_rule(single, {key: given[key] for key in given if key in single})
        for key in given.keys() - single.keys():
            rule, about = self._rules.traits.get(key), given[key]
            if rule is None or not isinstance(about, dict):
                continue
            value = self._masked(rule, about.get("value"))
            if value is None:
                continue
            masked[key] = {"value": value}
            if rule.startswith(FAKE) and isinstance(about.get(key), str):
                masked[key][key] = self._masked(rule, about[key])
            masked[key] |= self._certainty(rule, about)
        if "div" not in masked:
            masked["div"] = depth  # Auspice needs a distance, and there are no dates
        return {key: masked[key] for key in [*given, "div"] if key in masked}

    def _certainty(self, rule: str, about: Mapping[str, Any]) -> dict[str, Any]:
        """Return the certainty of an inferred trait."""
        kept: dict[str, Any] = {}
        if _is_number(about.get("entropy")):
            kept["entropy"] = about["entropy"]
        confidence = about.get("confidence")
        if isinstance(confidence, dict):
            pairs = [(self._masked(rule, one), share) for one, share in confidence.items()]
            kept["confidence"] = {
                one: share for one, share in pairs if isinstance(one, str) and _is_number(share)
            }
        return kept

    def _branch(self, given: Mapping[str, Any]) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        labels = given.get(_LABELS)
        if isinstance(labels, dict):
            kept[_LABELS] = self._by_rule(self._rules.labels, labels)
        if self._genomes is Genomes.KEEP:
            kept[_MUTATIONS] = {
                gene: [one for one in changes if isinstance(one, str) and _is_change(one)]
                for gene, changes in _items(given.get(_MUTATIONS))
                if self._gene.fullmatch(gene) and isinstance(changes, list)
            }
        return {key: value for key, value in kept.items() if value}

    # Values

    def _by_rule(self, rules: Mapping[str, str], given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the masked form of the members that have a rule."""
        masked = {}
        for key, value in given.items():
            rule = rules.get(key)
            if rule is None:
                continue
            found = self._masked(rule, value)
            if found is not None:
                masked[key] = found
        return masked

    def _masked(self, rule: str, value: Any) -> Any:
        """Return the masked form of a value; None if it is left out."""
        mask = self._masks.get(rule)
        if mask is None:
            mask = self._masks[rule] = self._mask_of(rule)
        return mask(value)

    def _mask_of(self, rule: str) -> Callable[[Any], Any]:
        if rule.startswith(ONE_OF):
            return partial(_among, frozenset(rule.removeprefix(ONE_OF).split()))
        special = {"number": _number, "day": self._day, "genome": self._genome, "keep": _kept}
        return special.get(rule) or self._mask_of_texts(rule)

    def _mask_of_texts(self, rule: str) -> Callable[[Any], Any]:
        known: dict[str, Callable[[str], str | None]] = {
            "strain": self._strain,
            "accession": self._accession,
            # Equal values are frequent, and their masks do not depend on the node.
            "place": lru_cache(_CACHED)(self._place),
            "shift": self._hashes.moved,
        }
        text_of = known.get(rule) or lru_cache(_CACHED)(partial(self._hashed, rule))

        def mask(value: Any) -> Any:
            if isinstance(value, str):
                return text_of(value)
            is_text = isinstance(value, bool) or not _is_number(value)
            return None if is_text else text_of(str(value))

        return mask

    def _hashed(self, rule: str, text: str) -> str:
        return self._hashes.masked(text, rule)

    def _strain(self, text: str) -> str:
        is_public = text in self._known.public or _INNER.fullmatch(text)
        return text if is_public else self._hashes.masked(text, "hash")

    def _accession(self, text: str) -> str:
        is_public = self._name in self._known.public or text in _UNKNOWN
        return text if is_public else self._hashes.masked(text, "hash")

    def _place(self, text: str) -> str:
        return text if text in self._places else self._hashes.masked(text, f"{FAKE}place")

    def _day(self, value: Any) -> float | None:
        is_own = self._name in self._known.own
        return self._hashes.moved_year(value) if is_own and _is_number(value) else None

    def _genome(self, value: Any) -> Any:
        if self._genomes is not Genomes.KEEP:
            return None
        if isinstance(value, str):
            return value if _is_sequence(value) else None
        if isinstance(value, dict):
            return {
                gene: text
                for gene, text in value.items()
                if self._gene.fullmatch(gene) and isinstance(text, str) and _is_sequence(text)
            }
        return None


_CHANGE = re.compile(r"[A-Z*-]\d+[A-Z*-]", re.ASCII)
_SEQUENCE = re.compile(r"[A-Z*-]+|[a-z*-]+", re.ASCII)
_CHANGES = re.compile(r"[\w.]+: ?[A-Z*-]\d+[A-Z*-](, ?[A-Z*-]\d+[A-Z*-])*", re.ASCII)


def _is_change(text: str) -> bool:
    return _CHANGE.fullmatch(text) is not None


def _is_sequence(text: str) -> bool:
    parts = text.split("; ")
    return all(_CHANGES.fullmatch(part) for part in parts) or bool(_SEQUENCE.fullmatch(text))


def _is_number(value: object) -> bool:
    return isinstance(value, int) or (isinstance(value, float) and isfinite(value))


def _number(value: Any) -> Any:
    return value if _is_number(value) else None


def _kept(value: Any) -> Any:
    return value if isinstance(value, str) else _number(value)


def _among(words: Collection[str], value: Any) -> Any:
    if isinstance(value, list):
        return [one for one in value if _single(words, one) is not None]
    return _single(words, value)


def _single(words: Collection[str], value: Any) -> str | None:
    return value if isinstance(value, str) and value in words else None


def _items(value: Any) -> list[tuple[str, Any]]:
    return list(value.items()) if isinstance(value, dict) else []


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _title(key: str) -> str:
    words = key.replace("_", " ").strip()
    return words[:1].upper() + words[1:]
