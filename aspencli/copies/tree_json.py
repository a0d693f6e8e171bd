"""The JSON of a tree, rewritten node by node, so that memory does not grow with its size.

Only the attributes of one node and the way down to it are in memory. Trees are deep, so there is no
recursion.
"""

from __future__ import annotations

import codecs
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

MOST_CHARACTERS = 2 << 20
"""The longest value that is read as a whole: the description of a tree, or a node's attributes."""
_LONGEST_WORD = len("-Infinity")
_SPACE = re.compile(r"[ \t\n\r]*")
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


class UnusableTreeError(Exception):
    """A file that is not copied, with the reason."""


class Rewriting(ABC):
    """The changes to make in a tree."""

    @abstractmethod
    def top(self, key: str, value: Any) -> dict[str, Any]:
        """Return the members to write for a member of the document other than the tree."""

    @abstractmethod
    def node(self, own: Mapping[str, Any], *, is_tip: bool, depth: int) -> dict[str, Any]:
        """Return the members to write for those of a node, except its children.

        An inner node may come in two parts: its members before and after its children.
        """


def rewritten(pieces: Iterable[bytes], changes: Rewriting) -> Iterator[str]:
    """Yield the text of a tree with changes.

    Raises:
        UnusableTreeError: It is not a tree in Auspice's format.
    """
    scanner = _Scanner(pieces)
    yield from _Walk(scanner, changes).document()
    scanner.end()


def not_a_tree() -> UnusableTreeError:
    """Return the error for JSON that is something else."""
    return UnusableTreeError("not a tree in Auspice's format")


class _Walk:
    def __init__(self, scanner: _Scanner, changes: Rewriting):
        self._scanner = scanner
        self._changes = changes

    def document(self) -> Iterator[str]:
        scanner, has_tree, separator = self._scanner, False, ""
        if not scanner.take("{"):
            scanner.value()  # JSON, or else another error
            raise not_a_tree()
        yield "{"
        started = False
        while not scanner.take("}"):
            if started:
                scanner.expect(",")
            started = True
            key = scanner.key()
            if key == "tree" and not has_tree:
                has_tree = True
                yield f'{separator}"tree":'
                yield from self._trees()
            else:
                members = _members(self._changes.top(key, scanner.value()))
                if not members:
                    continue
                yield separator + members
            separator = ","
        if not has_tree:
            raise not_a_tree()
        yield "}"

    def _trees(self) -> Iterator[str]:
        scanner = self._scanner
        if not scanner.take("["):
            yield from self._tree()
            return
        yield "["
        yield from self._tree()
        while scanner.take(","):
            yield ","
            yield from self._tree()
        scanner.expect("]")
        yield "]"

    def _tree(self) -> Iterator[str]:
        scanner = self._scanner
        self._begin()
        way = [_Node()]
        while way:
            node = way[-1]
            if scanner.take("}"):
                yield self._end(node, len(way))
                way.pop()
                if way and scanner.take(","):
                    self._begin()
                    way.append(_Node())
                    yield ","
                elif way:
                    scanner.expect("]")
                    yield "]"
                continue
            if node.is_started:
                scanner.expect(",")
            node.is_started = True
            key = scanner.key()
            if key != "children":
                node.own[key] = scanner.value()
            elif not scanner.take("["):
                if scanner.value() is not None:
                    raise not_a_tree()
            elif not scanner.take("]"):
                if node.has_children:
                    raise not_a_tree()
                self._begin()
                yield self._open(node, len(way))
                way.append(_Node())

    def _begin(self) -> None:
        if not self._scanner.take("{"):
            self._scanner.value()
            raise not_a_tree()

    def _open(self, node: _Node, depth: int) -> str:
        """Return the text of a node up to its first child."""
        members = _members(self._changes.node(node.own, is_tip=False, depth=depth))
        node.has_children, node.own = True, {}
        return f'{{{members}{"," if members else ""}"children":['

    def _end(self, node: _Node, depth: int) -> str:
        """Return the rest of the text of a node."""
        if node.has_children:
            members = ""
            if node.own:
                members = _members(self._changes.node(node.own, is_tip=False, depth=depth))
            return f"{',' if members else ''}{members}}}"
        return f"{{{_members(self._changes.node(node.own, is_tip=True, depth=depth))}}}"


@dataclass(slots=True)
class _Node:
    own: dict[str, Any] = field(default_factory=dict)
    is_started: bool = False
    has_children: bool = False


def _members(values: Mapping[str, Any]) -> str:
    return _ENCODER.encode(values)[1:-1]


class _Scanner:
    """A text of JSON that is read in pieces."""

    def __init__(self, pieces: Iterable[bytes]):
        self._pieces = iter(pieces)
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._json = json.JSONDecoder(parse_constant=lambda _name: None)
        self._text = ""
        self._at = 0
        self._is_over = False

    def take(self, character: str) -> bool:
        """Return True, and go on behind a character, if it is the next one."""
        if self._text[self._at : self._at + 1] != character and self._next() != character:
            return False
        self._at += 1
        return True

    def expect(self, character: str) -> None:
        """Go on behind a character that has to be there."""
        if not self.take(character):
            raise _not_json()

    def key(self) -> str:
        """Return the key of a member."""
        if self._next() != '"':
            raise _not_json()
        key: str = self.value()
        self.expect(":")
        return key

    def value(self) -> Any:
        """Return the next value."""
        self._next()
        while True:
            try:
                value, end = self._json.raw_decode(self._text, self._at)
            except RecursionError as error:
                raise _not_json() from error
            except json.JSONDecodeError as error:
                if self._is_wrong(error) or not self._more():
                    raise _not_json() from error
                continue
            if end < len(self._text) or not self._more():  # a number could go on
                self._at = end
                return value

    def _is_wrong(self, error: json.JSONDecodeError) -> bool:
        """Return True if an error would be there with more text, too."""
        could_go_on = error.msg.startswith(("Unterminated", "Invalid \\"))
        return not could_go_on and error.pos + _LONGEST_WORD < len(self._text)

    def end(self) -> None:
        """Check that nothing follows."""
        if self._next():
            raise _not_json()

    def _next(self) -> str:
        """Return the next character that is no space; empty at the end."""
        while True:
            self._at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]  # it always matches
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def _more(self) -> bool:
        """Read on, and return False at the end; as much as there is, so that few tries suffice."""
        if self._is_over:
            return False
        pending = len(self._text) - self._at
        if pending > MOST_CHARACTERS:
            raise UnusableTreeError(f"a value in it is longer than {MOST_CHARACTERS >> 20} MB")
        found = []
        size = 0
        while size <= pending and not self._is_over:
            piece = next(self._pieces, None)
            self._is_over = piece is None
            try:
                found.append(self._decoder.decode(piece or b"", final=self._is_over))
            except UnicodeDecodeError as error:
                raise _not_json() from error
            size += len(found[-1])
        self._text = self._text[self._at :] + "".join(found)
        self._at = 0
        return True


def _not_json() -> UnusableTreeError:
    return UnusableTreeError("not JSON")
