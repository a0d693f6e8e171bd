"""Detect a file's type and encoding from its first bytes."""

from __future__ import annotations

import codecs
import re
from pathlib import PurePath

from aspencli.errors import BadInputError
from aspencli.packing import ZIP

_MAGIC = {
    b"7z\xbc\xaf\x27\x1c": ("is a 7z archive", "Unpack it, and give the file that is in it."),
    b"Rar!": ("is a RAR archive", "Unpack it, and give the file that is in it."),
    b"PAR1": ("is a Parquet file", "Save the table as CSV UTF-8."),
    b"{\\rtf": ("is an RTF document", "Save the table as CSV UTF-8."),
    b"PK\x05\x06": ("is an empty zip archive", "A CSV file is needed."),
    b"%PDF": ("is a PDF", "A CSV file is needed."),
    b"SQLite format 3": ("is a SQLite database", "A CSV file is needed."),
}
# Old workbooks and password-protected new ones are such a container, with named streams inside.
_CONTAINER = b"\xd0\xcf\x11\xe0"
_ENCRYPTED = "EncryptedPackage".encode("utf-16-le")
_MARKUP_SEEN = 4_096  # bytes to search for markup
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_JUNK = frozenset(range(32)) - frozenset(b"\t\n\r\f\x1b")
_JUNK_SHARE = 0.05
_SOME_JUNK = 8  # bytes; fewer are reported with their lines
_WIDE_SHARE = 0.4  # the share of zero bytes in ASCII text encoded with two bytes per character


def is_zip(head: bytes) -> bool:
    """Return True if it is a zip archive, as workbooks are."""
    return head.startswith(ZIP)


def sniff(name: str, head: bytes, encoding: str | None) -> tuple[str, int, list[str]]:
    """Return a file's codec, the length of its byte order mark, and notes.

    Args:
        name: The file's name in messages.
        head: Its first bytes.
        encoding: The encoding that the operator specified, if any.

    Raises:
        BadInputError: It is not text, or its encoding cannot be determined.
    """
    for magic, (what, remedy) in _MAGIC.items():
        if head.startswith(magic):
            raise BadInputError(f"{name} {what}", hint=remedy)
    if head.startswith(_CONTAINER):
        raise _container(name, head)
    _refuse_markup(name, head)
    length, marked = next(
        ((len(bom), codec) for bom, codec in _BOMS if head.startswith(bom)), (0, "")
    )
    if encoding is not None:
        return _as_told(name, encoding, length, marked)
    if marked:
        return marked, length, [] if marked == "utf-8" else [f"read as {marked[:6].upper()}"]
    _refuse_binary(name, head[:4096])
    return "utf-8", 0, []


def _refuse_markup(name: str, head: bytes) -> None:
    """Reject web pages and documents that programs save under spreadsheet file names.

    Raises:
        BadInputError: It is one of these.
    """
    start = head[:_MARKUP_SEEN].replace(b"\0", b"").lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n").lower()
    suffix = PurePath(name).suffix.lower()
    called = f" named {suffix}" if suffix not in {"", ".html", ".htm", ".xml", ".json"} else ""
    if start.startswith((b"<html", b"<!doctype html", b"<table", b"<meta", b"<style")):
        what = f"is an HTML page{called}: save it as .xlsx or CSV"
        hint = "Open it in the spreadsheet program, and save it as a workbook (.xlsx) or CSV UTF-8."
    elif start.startswith((b"<?xml", b"<workbook")):
        is_sheet = b"office:spreadsheet" in start or b"<workbook" in start
        kind = "spreadsheet" if is_sheet else "document"
        what = f"is an XML {kind}{called}: save it as .xlsx or CSV"
        hint = "Open it in the spreadsheet program, and save it as a workbook (.xlsx) or CSV UTF-8."
    elif start.startswith((b"{", b"[")) and re.match(rb'[{[]\s*(["{[}\]]|\d)', start):
        what, hint = (
            f"is JSON{called}: a table is needed",
            "Give a CSV file with a header and rows.",
        )
    else:
        return
    raise BadInputError(f"{name} {what}", hint=hint)


def _container(name: str, head: bytes) -> BadInputError:
    if _ENCRYPTED in head:
        return BadInputError(
            f"{name} is protected by a password",
            hint="Open it, and save it without one; or save the sheet as CSV UTF-8.",
        )
    return BadInputError(
        f"{name} is an old Excel workbook (.xls), or is protected by a password",
        hint="Open it, and save it as an Excel workbook (.xlsx) without a password.",
    )


def _as_told(name: str, encoding: str, length: int, marked: str) -> tuple[str, int, list[str]]:
    codec = _known(encoding)
    if marked == codec or marked.startswith(f"{codec}-"):  # utf-16 takes the mark's byte order
        codec = marked
    elif marked:
        raise BadInputError(
            f"{name} starts with the mark of {marked.upper()}, and --encoding says {encoding}",
            hint="Leave --encoding out.",
        )
    return codec, length, [f"read as {encoding}"]


def _refuse_binary(name: str, sample: bytes) -> None:
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    if even + odd > len(sample) * _WIDE_SHARE and min(even, odd) * 4 < max(even, odd):
        codec = "utf-16-le" if odd > even else "utf-16-be"
        raise BadInputError(
            f"{name} looks like UTF-16 without a byte order mark",
            hint=f"Save it as UTF-8, or say so: --encoding {codec}",
        )
    junk = sum(byte in _JUNK for byte in sample)
    if junk > max(_SOME_JUNK, len(sample) * _JUNK_SHARE):
        raise BadInputError(
            f"{name} is binary, not text", hint="Give a CSV file with a header and rows."
        )


def _known(encoding: str) -> str:
    try:
        b" ".decode(encoding, "replace")  # Some registered codecs do not decode to text.
    except (LookupError, UnicodeError):
        raise BadInputError(
            f"there is no encoding {encoding!r}", hint="Try utf-8, utf-16-le, cp1252 or latin-1."
        ) from None
    return codecs.lookup(encoding).name.removesuffix("-sig")
