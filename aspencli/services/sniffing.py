"""What kind of file it is, by its first bytes."""

from __future__ import annotations

import codecs

from aspencli.errors import BadInputError

_MAGIC = {
    b"\x1f\x8b": ("is compressed with gzip", "Unpack it first: gunzip FILE."),
    b"BZh": ("is compressed with bzip2", "Unpack it first: bunzip2 FILE."),
    b"\xfd7zXZ": ("is compressed with xz", "Unpack it first: unxz FILE."),
    b"\x28\xb5\x2f\xfd": ("is compressed with zstd", "Unpack it first: unzstd FILE."),
    b"PK\x03\x04": ("is a workbook or a zip archive", "Save the sheet as CSV UTF-8 first."),
    b"PK\x05\x06": ("is an empty zip archive", "A CSV file is needed."),
    b"\xd0\xcf\x11\xe0": ("is an old Excel workbook", "Save the sheet as CSV UTF-8 first."),
    b"%PDF": ("is a PDF", "A CSV file is needed."),
    b"SQLite format 3": ("is a SQLite database", "A CSV file is needed."),
}
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_JUNK = frozenset(range(32)) - frozenset(b"\t\n\r\f\x1b")
_JUNK_SHARE = 0.05
_SOME_JUNK = 8  # bytes; fewer are named with their lines
_WIDE_SHARE = 0.4  # of the bytes are zero where letters of ASCII take two bytes each


def sniff(name: str, head: bytes, encoding: str | None) -> tuple[str, int, list[str]]:
    """How a file is read: the codec, the length of its byte order mark, and notes.

    Args:
        name: What messages call the file.
        head: Its first bytes.
        encoding: How the operator says that it is read, if so.

    Raises:
        BadInputError: It is no text, or it cannot be told how to read it.
    """
    for magic, (what, remedy) in _MAGIC.items():
        if head.startswith(magic):
            raise BadInputError(f"{name} {what}", hint=remedy)
    length, marked = next(
        ((len(bom), codec) for bom, codec in _BOMS if head.startswith(bom)), (0, "")
    )
    if encoding is not None:
        return _as_told(name, encoding, length, marked)
    if marked:
        return marked, length, [] if marked == "utf-8" else [f"read as {marked[:6].upper()}"]
    _refuse_binary(name, head[:4096])
    return "utf-8", 0, []


def _as_told(name: str, encoding: str, length: int, marked: str) -> tuple[str, int, list[str]]:
    codec = _known(encoding)
    if marked == codec or marked.startswith(f"{codec}-"):  # utf-16 leaves it to the mark
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
        b" ".decode(encoding, "replace")  # some codecs are known that make no text
    except (LookupError, UnicodeError):
        raise BadInputError(
            f"there is no encoding {encoding!r}", hint="Try utf-8, utf-16-le, cp1252 or latin-1."
        ) from None
    return codecs.lookup(encoding).name.removesuffix("-sig")
