"""Trees in Newick notation; nothing here recurses, so a tree may be as deep as it likes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

_TOKEN = re.compile(
    r"\s*(?:([(),;])|(?::\s*([^\s(),;[]+))|'((?:[^']|'')*)'|([^\s(),:;'[]+)|\[[^]]*\])"
)


@dataclass(eq=False, slots=True)
class Node:
    """A node: a tip if it has no children.

    Attributes:
        name: The name of a tip, or what the notation says about another node, such as its support.
        length: The length of the branch above it, in substitutions per site.
    """

    name: str = ""
    length: float = 0.0
    children: list[Node] = field(default_factory=list)


def parse(text: str) -> Node:
    """Return the root of the tree in a text.

    Raises:
        ValueError: The text is not a tree.
    """
    root = node = Node()
    above: list[Node] = []
    position = 0
    text = text.rstrip()
    while position < len(text):
        found = _TOKEN.match(text, position)
        if found is None:
            raise ValueError(f"not Newick notation at character {position + 1}")
        position = found.end()
        mark, length, quoted, name = found.groups()
        if mark == "(":
            above.append(node)
            node.children.append(child := Node())
            node = child
        elif mark == "," and above:
            above[-1].children.append(child := Node())
            node = child
        elif mark == ")" and above:
            node = above.pop()
        elif mark == ";" and not above:
            break
        elif mark:
            raise ValueError(f"not Newick notation at character {position}")
        elif length:
            node.length = float(length)
        elif quoted is not None:
            node.name = quoted.replace("''", "'")
        elif name:
            node.name = name
    if above:
        raise ValueError("not Newick notation: a parenthesis is not closed")
    return root


def write(root: Node) -> str:
    """Return a tree in Newick notation; names must need no quotes."""
    parts: list[str] = []
    waiting: list[Node | str] = [root]
    while waiting:
        node = waiting.pop()
        if isinstance(node, str):
            parts.append(node)
            continue
        label = node.name if node is root else f"{node.name}:{node.length:.8f}"
        if not node.children:
            parts.append(label)
            continue
        parts.append("(")
        waiting.append(f"){label}")
        for number, child in enumerate(reversed(node.children)):
            if number:
                waiting.append(",")
            waiting.append(child)
    return "".join(parts) + ";\n"


def preorder(root: Node) -> Iterator[Node]:
    """Yield each node before its children."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        yield node
        waiting.extend(reversed(node.children))


def postorder(root: Node) -> list[Node]:
    """Return each node after its children."""
    return list(preorder(root))[::-1]


def tips(root: Node) -> list[Node]:
    """Return the tips from left to right."""
    return [node for node in preorder(root) if not node.children]


def rooted(root: Node, node: Node, distance: float = 0.0) -> Node:
    """Return a new root on the branch above a node; the tree is changed in place.

    Args:
        root: The present root.
        node: A node other than the root.
        distance: The length of the branch from the new root to the node.
    """
    path = _path(root, node)
    lengths = [each.length for each in path]
    lengths[0], node.length = max(node.length - distance, 0.0), distance
    new = Node(children=[node])
    below, child = new, node
    for parent, length in zip(path[1:], lengths, strict=False):
        parent.children.remove(child)
        below.children.append(parent)
        parent.length = length
        below = child = parent
    if len(root.children) == 1:  # all that it did was to join two branches
        only = root.children.pop()
        only.length += root.length
        holder = path[-2] if len(path) > 2 else new  # noqa: PLR2004 - the node, nodes between, the root
        holder.children[holder.children.index(root)] = only
    return new


def _path(root: Node, node: Node) -> list[Node]:
    """Return the nodes from a node up to the root, with both."""
    parents = _parents(root)
    path = [node]
    while path[-1] is not root:
        path.append(parents[path[-1]])
    return path


def _parents(root: Node) -> dict[Node, Node]:
    return {child: parent for parent in preorder(root) for child in parent.children}


def at_midpoint(root: Node) -> Node:
    """Return a new root halfway between the two tips that are farthest apart."""
    parents = _parents(root)
    one, _ = _farthest(tips(root)[0], parents)
    other, reached = _farthest(one, parents)
    half = reached[other][0] / 2
    if half <= 0:
        return root
    node, before = other, reached[other][1]
    while before is not None and reached[before][0] > half:
        node, before = before, reached[before][1]
    if before is None:
        return root
    if parents.get(node) is before:
        return rooted(root, node, reached[node][0] - half)
    return rooted(root, before, half - reached[before][0])


def _farthest(
    start: Node, parents: Mapping[Node, Node]
) -> tuple[Node, dict[Node, tuple[float, Node | None]]]:
    """Return the tip farthest from a node, and the distance and the way back of every node."""
    reached: dict[Node, tuple[float, Node | None]] = {start: (0.0, None)}
    waiting = [start]
    while waiting:
        node = waiting.pop()
        for neighbor in (*node.children, parents.get(node)):
            if neighbor is not None and neighbor not in reached:
                length = node.length if neighbor is parents.get(node) else neighbor.length
                reached[neighbor] = (reached[node][0] + length, node)
                waiting.append(neighbor)
    leaves = [node for node in reached if not node.children]
    return max(leaves, key=lambda node: reached[node][0]), reached
