"""The parts of a workbook: XML in a zip archive, read in chunks and without trusting its content.

Open Packaging Conventions, ECMA-376 part 2. Nothing is unpacked as a whole: data that cannot be
part of a workbook is rejected before it fills memory or disk.
"""

from __future__ import annotations

import mmap
import re
import tempfile
import zlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from posixpath import dirname, join, normpath
from typing import IO
from xml.parsers import expat
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from aspencli.errors import BadInputError
from aspencli.tabular import compression
from aspencli.tabular.compression import check_index

_PIECE = 1 << 16  # bytes
_SMALL = 1 << 24  # maximum size in bytes of a part read with `elements`
_LONGEST_TAG = 1 << 20  # bytes; the parser keeps an unfinished tag in memory
_ENCRYPTED = 0x1  # bit in a part's flags
_RELATIONS = "_rels"
_LARGEST_STRINGS = 1 << 30  # bytes of XML
_LARGEST_TEXT = 1 << 29  # bytes of text kept on disk
_LARGEST_CELL = 1 << 20  # characters; a spreadsheet allows 32,767
# The escapes for characters that XML does not allow: _x000D_ is a carriage return.
_ESCAPE = re.compile("_x([0-9A-Fa-f]{4})_")
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

Attributes = dict[str, str]


@dataclass(frozen=True)
class Element:
    """The start of an XML element, with names stripped of their namespaces."""

    parent: str
    name: str
    attributes: Attributes


class Package:
    """A zip archive of XML documents.

    Args:
        name: Its name in messages.
        file: Its bytes; must be seekable.

    Raises:
        BadInputError: It is not a complete archive.
    """

    def __init__(self, name: str, file: IO[bytes]):
        self.name = name
        try:
            check_index(file)
            self._archive = ZipFile(file)
        except (BadZipFile, NotImplementedError, UnicodeDecodeError) as error:
            raise self.damaged("it is not a complete zip archive") from error
        stored = file.seek(0, 2)
        whole = sum(info.file_size for info in self._archive.infolist())
        compression.check(name, whole, stored, compression.WORKBOOK_FLOOR)
        # Some programs write backslashes, or a different letter case than in the references.
        self._parts = {_plain(info.filename): info for info in self._archive.infolist()}

    def close(self) -> None:
        """Close the archive; the underlying file stays open."""
        self._archive.close()

    def damaged(self, reason: str) -> BadInputError:
        """Return the error for a damaged file."""
        return BadInputError(
            f"{self.name} is damaged: {reason}",
            hint="Open it in a spreadsheet program, then save it as a new .xlsx or CSV UTF-8.",
        )

    def __contains__(self, path: str) -> bool:
        return _plain(path) in self._parts

    def pieces(self, path: str, limit: int) -> Iterator[bytes]:
        """Yield the bytes of a part.

        Args:
            path: The part.
            limit: The maximum number of bytes.

        Raises:
            BadInputError: The part is larger, or cannot be unpacked.
        """
        info = self._parts.get(_plain(path))
        if info is None:
            raise self.damaged(f"it has no part {path}")
        known = info.compress_type in {ZIP_STORED, ZIP_DEFLATED} and info.header_offset >= 0
        if not known or info.flag_bits & _ENCRYPTED:
            raise self.damaged(f"its part {path} uses an unsupported compression method")
        read = 0
        try:
            with self._archive.open(info) as file:
                while piece := file.read(_PIECE):
                    read += len(piece)
                    if read > limit:
                        raise self._too_large(info, limit)
                    yield piece
        except (BadZipFile, NotImplementedError, zlib.error, EOFError) as error:
            raise self.damaged(f"its part {path} cannot be decompressed") from error

    def parse(self, path: str, parser: expat.XMLParserType, limit: int) -> Iterator[None]:
        """Feed a part to a parser, chunk by chunk.

        Raises:
            BadInputError: It is not XML, or exceeds the limit.
        """
        parser.StartDoctypeDeclHandler = self._refuse_doctype
        fed = 0
        try:
            for piece in self.pieces(path, limit):
                parser.Parse(piece, False)
                fed += len(piece)
                if fed - parser.CurrentByteIndex > _LONGEST_TAG:
                    raise self.damaged(
                        f"its part {path} has a tag of more than {_LONGEST_TAG:,} bytes"
                    )
                yield
            parser.Parse(b"", True)
        except expat.ExpatError as error:
            raise self.damaged(f"its part {path} is not valid XML ({error})") from error
        yield

    def elements(self, path: str) -> Iterator[Element]:
        """Yield the elements of a small part, in order."""
        found: list[Element] = []
        open_names = [""]

        def start(name: str, attributes: Attributes) -> None:
            local = _local(name)
            bare = {_local(key): value for key, value in attributes.items()}
            found.append(Element(open_names[-1], local, bare))
            open_names.append(local)

        parser = expat.ParserCreate(namespace_separator=" ")
        parser.StartElementHandler = start
        parser.EndElementHandler = lambda _name: open_names.pop()
        for _piece in self.parse(path, parser, _SMALL):
            yield from found
            found.clear()

    def relations(self, path: str) -> list[Attributes]:
        """Return the relationships of a part: ID, kind (the last word of its type), and path.

        Args:
            path: The part; empty for the archive itself.
        """
        folder, _slash, file = path.rpartition("/")
        place = join(folder, _RELATIONS, f"{file}.rels")
        if place not in self:
            return []
        return [
            {
                "id": found.attributes.get("Id", ""),
                "kind": found.attributes.get("Type", "").rpartition("/")[2],
                "path": _resolve(path, found.attributes.get("Target", "")),
            }
            for found in self.elements(place)
            if found.name == "Relationship" and found.attributes.get("TargetMode") != "External"
        ]

    def _too_large(self, info: ZipInfo, limit: int) -> BadInputError:
        return BadInputError(
            f"{self.name} is too large: its part {info.filename} has more than {limit:,} bytes.",
            hint="Save the sheet as CSV UTF-8, which has no size limit.",
        )

    def _refuse_doctype(self, *_about: object) -> None:
        # No workbook has one, and entities could make a small file expand without end.
        raise self.damaged("its XML contains a DOCTYPE")


def _plain(path: str) -> str:
    return path.replace("\\", "/").lstrip("/").lower()


def _local(name: str) -> str:
    return name.rpartition(" ")[2]


def _resolve(base: str, target: str) -> str:
    return normpath(join("/", dirname(base), target.replace("\\", "/"))).lstrip("/")


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


def _unescape(match: re.Match[str]) -> str:
    code = int(match[1], 16)
    # Half of a surrogate pair is not valid text.
    return match[0] if 0xD800 <= code <= 0xDFFF else chr(code)  # noqa: PLR2004 - surrogates


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
