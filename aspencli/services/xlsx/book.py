"""The sheets of a workbook, and the choice of the one to read.

SpreadsheetML, ECMA-376 part 1, 18.2 (workbook) and 18.8 (styles).
"""

from __future__ import annotations

import datetime as dt
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache

from aspencli.errors import BadInputError
from aspencli.services.xlsx.cells import CellFormat
from aspencli.services.xlsx.package import Attributes, Package
from aspencli.services.xlsx.rows import LARGEST_SHEET, Rows
from aspencli.services.xlsx.texts import Strings

_GLANCE = 1 << 18  # bytes of a sheet to search for its first value
_VALUE = re.compile(rb"<(\w+:)?(v|is)[ />]")
_TRUE = frozenset({"1", "true"})
_SHOWN = frozenset({None, "visible"})
_DAY_ONE = {False: dt.datetime(1899, 12, 30), True: dt.datetime(1904, 1, 1)}  # noqa: DTZ001 - no zone
_OTHERS = (
    ("xl/workbook.bin", "is a binary workbook (.xlsb)"),
    ("content.xml", "is an OpenDocument file (.ods)"),
    ("index/document.iwa", "is a Numbers document"),
)


@dataclass(frozen=True)
class Tab:
    """One sheet of a workbook.

    Attributes:
        title: Its name.
        place: Its position, from 1.
        path: The package part that contains it.
        is_visible: True if the spreadsheet shows it.
    """

    title: str
    place: int
    path: str
    is_visible: bool


class Book:
    """The structure of a workbook.

    Args:
        package: Its parts.

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
        self._epoch = _DAY_ONE[False]
        self._active = 0
        found: list[Attributes] = []
        for element in package.elements(path):
            if element.name == "sheet":
                found.append(element.attributes)
            elif element.name == "workbookPr":
                self._epoch = _DAY_ONE[element.attributes.get("date1904") in _TRUE]
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
                f"{self._package.name} has no visible sheet",
                hint=f"Name one with --sheet: {self._titles(self.tabs) or 'there is none'}.",
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
                f"{self._package.name} is empty on its sheet '{tab.title}', and has data on "
                f"{self._titles(others)}",
                hint="Name the sheet: "
                + " or ".join(f"--sheet {shlex.quote(other.title)}" for other in others[:3]),
            )

    def describe(self, tab: Tab) -> str:
        """Describe which sheet it is, and which other sheets there are."""
        hidden = [other for other in self.tabs if other != tab and not other.is_visible]
        unread = [other for other in self.tabs if other != tab and other.is_visible]
        unread = [other for other in unread if self._has_values(other)]
        parts = [f"the {_ordinal(tab.place)} of {len(self.tabs)}"] if len(self.tabs) > 1 else []
        parts += [] if tab.is_visible else ["which is hidden"]
        parts += [f"not read: {self._titles(unread)}"] if unread else []
        parts += [f"hidden: {self._titles(hidden)}"] if hidden else []
        return f"sheet '{tab.title}'" + (f" ({'; '.join(parts)})" if parts else "")

    def rows(self, tab: Tab, stack: ExitStack) -> Rows:
        """Return the rows of a sheet."""
        strings = self._part("sharedStrings")
        texts = Strings(self._package, strings) if strings else None
        if texts:
            stack.callback(texts.close)
        styles = list(self._styles())
        plain = CellFormat("General", self._epoch)

        def text_at(index: int) -> str:
            if texts is None:
                raise self._package.damaged("it holds no texts, and a cell refers to one")
            return texts[index]

        def format_of(style: int) -> CellFormat:
            return styles[style] if style < len(styles) else plain

        return Rows(self._package, tab.path, text_at, format_of)

    def _styles(self) -> Iterator[CellFormat]:
        path = self._part("styles")
        codes: dict[int, str] = {}
        make = lru_cache(lambda number: CellFormat.of(number, codes, self._epoch))
        for element in self._package.elements(path) if path else ():
            about = element.attributes
            if element.name == "numFmt" and element.parent == "numFmts":
                codes[_number(about.get("numFmtId", ""))] = about.get("formatCode", "General")
            elif element.name == "xf" and element.parent == "cellXfs":
                yield make(_number(about.get("numFmtId", "")))

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
            hint=f"Its sheets are: {self._titles(self.tabs)}.",
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
            f"{self._package.name} {what or 'is a zip archive that holds no workbook'}",
            hint="Save the sheet as an Excel workbook (.xlsx) or as CSV UTF-8."
            if what
            else "Unpack it, and give the file that is in it.",
        )


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() else 0


def _ordinal(number: int) -> str:
    teens = number % 100 in {11, 12, 13}
    return f"{number}{'th' if teens else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')}"
