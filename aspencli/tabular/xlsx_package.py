"""The parts of a workbook: XML in a zip archive, read in chunks and without trusting its content.

Open Packaging Conventions, ECMA-376 part 2; SpreadsheetML, ECMA-376 part 1: 18.2 (workbook), 18.4
(shared strings), 18.8 (styles). Nothing is unpacked as a whole: data that cannot be part of a
workbook is rejected before it fills memory or disk.
"""

from __future__ import annotations

import datetime as dt
import mmap
import re
import shlex
import tempfile
import zlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from posixpath import dirname, join, normpath
from typing import IO
from xml.parsers import expat
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipInfo

from aspencli.errors import BadInputError
from aspencli.tabular.source import WORKBOOK_FLOOR, check_expansion, open_zip

LARGEST_SHEET = 1 << 32  # bytes of XML
TRUE = frozenset({"1", "true"})
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
_GLANCE = 1 << 18  # bytes of a sheet to search for its first value
_VALUE = re.compile(rb"<(\w+:)?(v|is)[ />]")
_SHOWN = frozenset({None, "visible"})
_DAY_ONE = {False: dt.datetime(1899, 12, 30), True: dt.datetime(1904, 1, 1)}  # noqa: DTZ001 - no zone
_OTHERS = (
    ("xl/workbook.bin", "is a binary workbook (.xlsb)"),
    ("content.xml", "is an OpenDocument file (.ods)"),
    ("index/document.iwa", "is a Numbers document"),
)
# IDs that the standard assigns to East Asian formats, and that openpyxl's list omits.
_ASIAN_DATES = (27, 28, 29, 30, 31, 36, 50, 51, 52, 53, 54, 55, 56, 57, 58)
_ASIAN_TIMES = (32, 33, 34, 35)
_ASIAN_FORMATS = dict.fromkeys(_ASIAN_DATES, "yyyy-mm-dd") | dict.fromkeys(_ASIAN_TIMES, "h:mm:ss")
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
    """A zip archive of XML documents, in a seekable file.

    Raises:
        BadInputError: It is not a complete archive.
    """

    def __init__(self, name: str, file: IO[bytes]):
        self.name = name
        try:
            self._archive = open_zip(file)
        except (BadZipFile, NotImplementedError, UnicodeDecodeError) as error:
            raise self.damaged("it is not a complete zip archive") from error
        stored = file.seek(0, 2)
        whole = sum(info.file_size for info in self._archive.infolist())
        check_expansion(name, whole, stored, WORKBOOK_FLOOR)
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

        Raises:
            BadInputError: The part has more bytes than the limit, or cannot be unpacked.
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

        The path of the archive itself is empty.
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

    def _start(self, name: str, _attributes: Attributes) -> None:
        kind = KINDS.get(name)
        if kind == "v" or (kind == "t" and not self._phonetic):
            self._parser.CharacterDataHandler = self._take
        elif kind == "rPh":
            self._phonetic = True

    def _end(self, name: str) -> None:
        kind = KINDS.get(name)
        if kind in {"v", "t"}:
            self._parser.CharacterDataHandler = None
        elif kind == "rPh":
            self._phonetic = False


def _unescape(match: re.Match[str]) -> str:
    code = int(match[1], 16)
    # Half of a surrogate pair is not valid text.
    return match[0] if 0xD800 <= code <= 0xDFFF else chr(code)  # noqa: PLR2004 - surrogates


class Strings(Reader):
    """The shared strings of a workbook, kept on disk."""

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

    def _end(self, name: str) -> None:
        super()._end(name)
        if KINDS.get(name) == "si":
            data = self._text().encode(errors="replace")
            self._file.write(data)
            self._ends.append(self._ends[-1] + len(data))


@dataclass(frozen=True)
class Tab:
    """One sheet of a workbook; its place is counted from 1, its path is that of its part."""

    title: str
    place: int
    path: str
    is_visible: bool


class Book:
    """The structure of a workbook.

    Attributes:
        tabs: Its sheets.
        epoch: The date that dates count from.

    Raises:
        BadInputError: It is not a workbook.
    """

    def __init__(self, package: Package):
        self._package = package
        parts = {found["kind"]: found["path"] for found in package.relations("")}
        path = parts.get("officeDocument", "xl/workbook.xml")
        if path not in package or path.endswith(".bin"):
            raise self._foreign()
        self._parts = package.relations(path)
        self.epoch = _DAY_ONE[False]
        self._active = 0
        found: list[Attributes] = []
        for element in package.elements(path):
            if element.name == "sheet":
                found.append(element.attributes)
            elif element.name == "workbookPr":
                self.epoch = _DAY_ONE[element.attributes.get("date1904") in TRUE]
            elif element.name == "workbookView":
                self._active = _number(element.attributes.get("activeTab", ""))
        self.tabs = self._tabs_of(found)

    def choose(self, wanted: str | None) -> Tab:
        """Return the sheet with this name or number; by default the active or first visible one."""
        if wanted is not None:
            return self._named(wanted)
        visible = [tab for tab in self.tabs if tab.is_visible]
        if not visible:
            raise BadInputError(
                f"{self._package.name} has no visible sheet.",
                hint=f"Choose one with --sheet: {self._titles(self.tabs)}."
                if self.tabs
                else "Give a workbook with a sheet.",
            )
        active = [tab for tab in visible if tab.place == self._active + 1]
        return (active or visible)[0]

    def refuse_empty(self, tab: Tab) -> None:
        """Reject a sheet without values if other sheets have some.

        Raises:
            BadInputError: The sheet is empty; the error lists the others.
        """
        if self._has_values(tab):
            return
        others = [other for other in self.tabs if other != tab and self._has_values(other)]
        if others:
            raise BadInputError(
                f"The sheet '{tab.title}' of {self._package.name} is empty; there is data on "
                f"{self._titles(others)}.",
                hint="Choose a sheet: "
                + " or ".join(f"--sheet {shlex.quote(other.title)}" for other in others[:3]),
            )

    def describe(self, tab: Tab) -> str:
        """Describe which sheet it is, and which other sheets there are."""
        hidden = [other for other in self.tabs if other != tab and not other.is_visible]
        unread = [other for other in self.tabs if other != tab and other.is_visible]
        unread = [other for other in unread if self._has_values(other)]
        parts = [f"the {_ordinal(tab.place)} of {len(self.tabs)}"] if len(self.tabs) > 1 else []
        parts += [] if tab.is_visible else ["hidden"]
        parts += [f"not read: {self._titles(unread)}"] if unread else []
        parts += [f"hidden sheets: {self._titles(hidden)}"] if hidden else []
        return f"sheet '{tab.title}'" + (f" ({'; '.join(parts)})" if parts else "")

    def strings(self) -> Strings | None:
        """Return the texts that its sheets share, which must be closed; None if there are none."""
        path = self._part("sharedStrings")
        return Strings(self._package, path) if path else None

    def formats(self) -> Iterator[str]:
        """Yield the code of the number format of each cell style."""
        from openpyxl.styles.numbers import BUILTIN_FORMATS

        path = self._part("styles")
        codes: dict[int, str] = BUILTIN_FORMATS | _ASIAN_FORMATS
        for element in self._package.elements(path) if path else ():
            about = element.attributes
            number = _number(about.get("numFmtId", ""))
            if element.name == "numFmt" and element.parent == "numFmts":
                codes[number] = about.get("formatCode", "General")
            elif element.name == "xf" and element.parent == "cellXfs":
                yield codes.get(number, "General")

    def _part(self, kind: str) -> str | None:
        paths = [part["path"] for part in self._parts if part["kind"] == kind]
        return paths[0] if paths and paths[0] in self._package else None

    def _tabs_of(self, found: list[Attributes]) -> list[Tab]:
        paths = {part["id"]: part["path"] for part in self._parts if part["kind"] == "worksheet"}
        return [
            Tab(about.get("name", ""), place, paths[about["id"]], about.get("state") in _SHOWN)
            for place, about in enumerate(found, start=1)
            if about.get("id") in paths  # Chart sheets are not worksheets.
        ]

    def _named(self, wanted: str) -> Tab:
        for matches in (
            lambda tab: tab.title == wanted,
            lambda tab: tab.title.casefold() == wanted.strip().casefold(),
            lambda tab: str(tab.place) == wanted.strip(),
        ):
            tabs = [tab for tab in self.tabs if matches(tab)]
            if tabs:
                return tabs[0]
        raise BadInputError(
            f"{self._package.name} has no sheet {wanted!r}",
            hint=f"Sheets: {self._titles(self.tabs)}.",
        )

    def _titles(self, tabs: Sequence[Tab]) -> str:
        return ", ".join(f"'{tab.title}'" for tab in tabs)

    def _has_values(self, tab: Tab) -> bool:
        seen = b""
        if tab.path in self._package:
            for piece in self._package.pieces(tab.path, LARGEST_SHEET):
                seen += piece
                if _VALUE.search(seen) or len(seen) > _GLANCE:
                    return True
        return False

    def _foreign(self) -> BadInputError:
        what = next((words for path, words in _OTHERS if path in self._package), None)
        return BadInputError(
            f"{self._package.name} {what or 'is a zip archive without a workbook'}.",
            hint="Save the sheet as an Excel workbook (.xlsx) or as CSV UTF-8."
            if what
            else "Extract it, then give the file in it.",
        )


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() else 0


def _ordinal(number: int) -> str:
    teens = number % 100 in {11, 12, 13}
    return f"{number}{'th' if teens else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')}"
