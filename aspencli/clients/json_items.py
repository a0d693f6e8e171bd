"""A streaming reader for long JSON lists, which keeps one item in memory at a time."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Iterator
from typing import Any

_SPACE = " \t\n\r"


def items(chunks: Iterable[bytes], key: str) -> Iterator[Any]:
    """Yield the items of the list under the first key of a JSON object.

    Args:
        chunks: The text of ``{"key": [item, ...]}``, in UTF-8, split anywhere.
        key: The key.

    Raises:
        ValueError: The text has another form, or ends too early.
    """
    reader = _Reader(chunks)
    for token in ("{", json.dumps(key), ":", "["):
        reader.take(token)
    if reader.follows("]"):
        return
    while True:
        yield reader.value()
        if reader.follows("]"):
            return
        reader.take(",")


class _Reader:
    def __init__(self, chunks: Iterable[bytes]):
        self._pieces = codecs.iterdecode(chunks, "utf-8")
        self._decode = json.JSONDecoder().raw_decode
        self._text = ""
        self._at = 0

    def take(self, token: str) -> None:
        """Consume a token, which must come next."""
        if not self.follows(token):
            raise ValueError(f"{token} expected")

    def follows(self, token: str) -> bool:
        """Return True if a token comes next, and consume it then."""
        self._skip_space()
        while len(self._text) - self._at < len(token):
            self._more()
        if not self._text.startswith(token, self._at):
            return False
        self._at += len(token)
        return True

    def value(self) -> Any:
        """Return the object or list that comes next."""
        self._skip_space()
        while True:
            try:
                found, self._at = self._decode(self._text, self._at)
            except ValueError:
                self._more()  # usually it is cut off; if it is invalid, the text will end too early
            else:
                return found

    def _skip_space(self) -> None:
        while True:
            while self._at < len(self._text) and self._text[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._text):
                return
            self._more()

    def _more(self) -> None:
        piece = next(self._pieces, None)
        if piece is None:
            raise ValueError("it ends too early")
        self._text = self._text[self._at :] + piece
        self._at = 0
