"""Substitutions on the branches of a tree by parsimony, to tell branches that have none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from aspen.workflows.tree.newick import Node, postorder, preorder

_BITS = {"A": 1, "C": 2, "G": 4, "T": 8, "R": 5, "Y": 10, "S": 6, "W": 9, "K": 12, "M": 3}
_BITS |= {"B": 14, "D": 13, "H": 11, "V": 7}
States: TypeAlias = Any  # an array of bytes; mypy knows nothing of numpy here
_TABLE: States = np.full(256, 15, dtype=np.uint8)  # everything else could be any base
for _code, _value in _BITS.items():
    _TABLE[ord(_code)] = _value


def informative(sequences: Mapping[str, str]) -> dict[str, States]:
    """Return the possible bases of each sequence, as bits, at the sites that differ for sure."""
    texts = list(sequences.values())
    same: States = np.full(len(texts[0]), 15, dtype=np.uint8)
    for text in texts:
        same &= _bits(text)
    sites = np.flatnonzero(same == 0)
    return {name: _bits(text)[sites] for name, text in sequences.items()}


def _bits(text: str) -> States:
    found: States = _TABLE[np.frombuffer(text.encode("ascii", "replace"), dtype=np.uint8)]
    return found


def changes(root: Node, states: Mapping[str, States]) -> dict[Node, int]:
    """Return the number of substitutions on the branch above each node except the root.

    Sets of states go up the tree, and one of each comes down, the parent's if possible (Fitch;
    Hartigan for nodes with more than two children).
    """
    sets = _sets(root, states)
    found: dict[Node, int] = {}
    chosen = {root: _lowest(sets[root])}
    for node in preorder(root):
        if not node.children:
            continue
        above = chosen.pop(node)
        for child in node.children:
            differs = (sets[child] & above) == 0
            found[child] = int(differs.sum())
            if child.children:
                chosen[child] = np.where(differs, _lowest(sets[child]), above)
    return found


def _sets(root: Node, states: Mapping[str, States]) -> dict[Node, States]:
    """Return the states of each node that need the fewest substitutions below it."""
    sets: dict[Node, States] = {}
    for node in postorder(root):
        if not node.children:
            sets[node] = states[node.name]
            continue
        below = np.stack([sets[child] for child in node.children])
        counts = np.stack([((below >> bit) & 1).sum(axis=0) for bit in range(4)])
        best = counts == counts.max(axis=0)
        sets[node] = (best * np.array([[1], [2], [4], [8]])).sum(axis=0).astype(np.uint8)
    return sets


def _lowest(states: States) -> States:
    lowest: States = states & (~states + np.uint8(1))
    return lowest


def collapse(root: Node, states: Mapping[str, States]) -> dict[Node, int]:
    """Join nodes to their parents where the branch between them has no substitution.

    Returns:
        The number of substitutions on the branches that are left.
    """
    found = changes(root, states)
    for node in postorder(root):
        if any(child.children and not found[child] for child in node.children):
            kept: list[Node] = []
            for child in node.children:
                kept.extend([child] if found[child] or not child.children else child.children)
            node.children = kept
    return found
