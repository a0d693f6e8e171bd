"""Collect the texts of a workbook's cells from its XML."""

from __future__ import annotations

import mmap
import re
import tempfile
from array import array
from xml.parsers import expat

from aspencli.tabular.xlsx.package import Attributes, Package

_SPACES = (
    "http://schemas.openxmlformats.org/spreadsheetml/2006/main",
    "http://purl.oclc.org/ooxml/spreadsheetml/main",
)
KINDS = {
    f"{space} {name}": name
    for space in _SPACES
    for name in ("row", "c", "v", "f", "is", "t", "si", "rPh")
}
"""The relevant elements by qualified name, in both namespaces (transitional and strict)."""
_LARGEST_STRINGS = 1 << 30  # bytes of XML
_LARGEST_TEXT = 1 << 29  # bytes of text kept on disk
_LARGEST_CELL = 1 << 20  # characters; a spreadsheet allows 32,767
# The escapes for characters that XML does not allow: _x000D_ is a carriage return.
_ESCAPE = re.compile("_x([0-9A-Fa-f]{4})_")


class Reader:
    """An XML reader that collects the text of some elements."""

    def __init__(self, package: Package, path: str):
        self._package = package
        self._path = path
        self._parser = expat.ParserCreate(namespace_separator=" ")
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._pieces: list[str] = []
        self._length = 0
        self._phonetic = False

    def _gather(self) -> None:
        self._parser.CharacterDataHandler = self._take

    def _take(self, text: str) -> None:
        self._length += len(text)
        if self._length > _LARGEST_CELL:
            raise self._package.damaged(f"a cell has more than {_LARGEST_CELL:,} characters")
        self._pieces.append(text)

    def _text(self) -> str:
        """Return the text collected since the last call."""
        text = "".join(self._pieces)
        self._pieces.clear()
        self._length = 0
        return _ESCAPE.sub(_unescape, text) if "_x" in text else text

    def _start(self, name: str, attributes: Attributes) -> None:
        raise NotImplementedError

    def _end(self, name: str) -> None:
        raise NotImplementedError


class Strings(Reader):
    """The shared strings of a workbook, kept on disk.

    Args:
        package: The workbook.
        path: The part that contains them.
    """

    def __init__(self, package: Package, path: str):
        super().__init__(package, path)
        self._ends = array("Q", [0])
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self._map: mmap.mmap | None = None
        try:
            for _piece in package.parse(path, self._parser, _LARGEST_STRINGS):
                if self._ends[-1] > _LARGEST_TEXT:
                    raise package.damaged(f"it contains more than {_LARGEST_TEXT:,} bytes of text")
            self._file.flush()
            if self._ends[-1]:
                self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        except BaseException:
            self.close()
            raise

    def __getitem__(self, index: int) -> str:
        if not 0 <= index < len(self._ends) - 1:
            raise self._package.damaged(f"a cell refers to text {index:,}, which does not exist")
        first, end = self._ends[index], self._ends[index + 1]
        return self._map[first:end].decode() if self._map else ""

    def close(self) -> None:
        """Release the temporary file."""
        if self._map:
            self._map.close()
        self._file.close()

    def _start(self, name: str, _attributes: Attributes) -> None:
        kind = KINDS.get(name)
        if kind == "t" and not self._phonetic:
            self._gather()
        elif kind == "rPh":
            self._phonetic = True

    def _end(self, name: str) -> None:
        kind = KINDS.get(name)
        if kind == "t":
            self._parser.CharacterDataHandler = None
        elif kind == "rPh":
            self._phonetic = False
        elif kind == "si":
            data = self._text().encode(errors="replace")
            self._file.write(data)
            self._ends.append(self._ends[-1] + len(data))


def _unescape(match: re.Match[str]) -> str:
    code = int(match[1], 16)
    # Half of a surrogate pair is not valid text.
    return match[0] if 0xD800 <= code <= 0xDFFF else chr(code)  # noqa: PLR2004 - surrogates
