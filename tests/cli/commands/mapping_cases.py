"""Mappings as operators have them, valid and broken, and the outcome of each.

``python -m tests.cli.commands.mapping_cases`` runs them all and prints a table in Markdown, on the
database in ``ASPEN_DATABASE_URL_LOCAL`` (migrated; it gets more groups), or else on a separate
PostgreSQL.
"""

from __future__ import annotations

import codecs
import gzip
import io
import lzma
import os
import random
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.cli.commands.mapping_lab import SAMPLES, Ended, Lab

H = "private_identifier,public_identifier"
_MANY = {f"M-{n}": f"P-{n}" for n in range(10_000)}


@dataclass(frozen=True)
class Case:
    """A mapping and its outcome.

    Attributes:
        name: What is special about it.
        content: Its bytes, or a function that creates something else at the path.
        code: The exit code.
        says: Texts on stderr.
        writes: The samples that are renamed, and their new names.
        options: Additional options of the command.
        samples: The samples of the group.
        as_root: True if the outcome is the same for root, who can read everything.
    """

    name: str
    content: bytes | Callable[[Path], None]
    code: int = 0
    says: tuple[str, ...] = ()
    writes: Mapping[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    samples: Mapping[str, str] = field(default_factory=lambda: SAMPLES)
    as_root: bool = True

    def run(self, lab: Lab, folder: Path) -> Ended:
        """Run the command on it in a separate process, with a new group."""
        path = folder / "ids.csv"
        if isinstance(self.content, bytes):
            path.write_bytes(self.content)
        else:
            self.content(path)
        return lab.update(lab.group(self.samples), str(path), "--yes", *self.options)


def good(name: str, content: str | bytes, writes: Mapping[str, str], *says: str) -> Case:
    """Return a case that is applied."""
    raw = content if isinstance(content, bytes) else content.encode()
    return Case(name, raw, 0, says, writes)


def bad(name: str, content: str | bytes, *says: str) -> Case:
    """Return a case that is refused."""
    raw = content if isinstance(content, bytes) else content.encode()
    return Case(name, raw, 2, says)


ONE = {"L-1": "N-1"}
TWO = {"L-1": "N-1", "L-2": "N-2"}

HEADERS = (
    good("plain", f"{H}\nL-1,N-1\nL-2,N-2\n", TWO, "2 samples updated"),
    good("no line end at the end", f"{H}\nL-1,N-1\nL-2,N-2", TWO),
    good("header in the other order", "public_identifier,private_identifier\nN-1,L-1\n", ONE),
    good("header in capitals", f"{H.upper()}\nL-1,N-1\n", ONE),
    good("header with spaces", " private_identifier , public_identifier \nL-1,N-1\n", ONE),
    good("header in quotes", '"private_identifier","public_identifier"\n"L-1","N-1"\n', ONE),
    good(
        "further columns",
        f"date,{H},note\n2023-01-01,L-1,N-1,x\n",
        ONE,
        "Note: ignored columns: date, note.",
    ),
    good(
        "nameless further columns",
        f"{H},,\nL-1,N-1,,\n",
        ONE,
        "ignored columns: (no name), (no name).",
    ),
    bad(
        "header repeated",
        f"{H},Private_Identifier\nL-1,N-1,L-1\n",
        "Line 1 of",
        "2 columns private_identifier",
    ),
    bad(
        "header nearly right",
        "private_identifer,public_identifier\nL-1,N-1\n",
        "no column private_identifier (did you mean 'private_identifer'?)",
        "Expected: private_identifier,public_identifier",
    ),
    bad("one column missing", "public_identifier\nN-1\n", "no column private_identifier\n"),
    bad("no header", "L-1,N-1\nL-2,N-2\n", "Line 1", "no column private_", "found: L-1, N-1"),
    good("header only", f"{H}\n", {}, "the file has no rows"),
)

LINES = (
    good("byte order mark", codecs.BOM_UTF8 + f"{H}\nL-1,N-1\n".encode(), ONE),
    good("CRLF", f"{H}\r\nL-1,N-1\r\nL-2,N-2\r\n", TWO),
    good("CR only", f"{H}\rL-1,N-1\rL-2,N-2\r", TWO),
    good("one row after CR only", f"{H}\rL-1,N-1", ONE),
    good("mixed line ends", f"{H}\r\nL-1,N-1\rL-2,N-2\n", TWO),
    bad(
        "numbers of CR lines", f"{H}\r\rL-1,N-1\rX,N-2", "line 4: private_identifier: the group has"
    ),
    good("blank lines", f"\n\n{H}\n\nL-1,N-1\n \t \nL-2,N-2\n\n", TWO, "skipped 5 blank lines."),
    bad("numbers after blank lines", f"\n\n{H}\nL-1,N-1\n\n  \nX,N-2\n", "line 7: private_", '"X"'),
    good("rows of delimiters only", f"{H}\n,\nL-1,N-1\n,\n", ONE, "skipped 2 blank lines."),
    good("comma in quotes", f'{H}\n"comma, lab","N, 1"\n', {"comma, lab": "N, 1"}),
    good("quote in quotes", f'{H}\n"quote "" lab","N""1"\n', {'quote " lab': 'N"1'}),
    good("space before a quote", f'{H}\n"comma, lab", "N, 1"\n', {"comma, lab": "N, 1"}),
    good("line break in another column", f'{H},note\nL-1,N-1,"a\nb"\nL-2,N-2,\n', TWO),
    bad(
        "numbers after a broken cell",
        f'{H},note\nL-1,N-1,"a\r\nb\rc"\nX,N-2,\n',
        'line 5: private_identifier: the group has no sample "X"',
    ),
    bad(
        "line break in an identifier",
        f'{H}\n"L\n1",N-1\nL-2,"N\n2"\n',
        "line 2: private_identifier: contains a line feed (U+000A) at position 2",
        "line 4: public_identifier: contains a line feed",
    ),
    bad("short row", f"{H}\nL-1,N-1\nL-2\n", "line 3: has too few cells: 1 (the header has 2)"),
    bad("long row", f"{H}\nL-1,N-1,x\nL-2,N-2\n", "line 2: has too many cells: 3"),
    good(
        "rows of another width outside the columns that are used",
        f"{H},note\nL-1,N-1,x,,\nL-2,N-2\n",
        TWO,
        "Note: rows with extra blank cells, or without cells in unused columns: 2 (the first is",
        "Note: values in ignored columns: note (1).",
    ),
    Case(
        "title lines before the header",
        f"# exported,,\n\n{H}\nL-1,N-1\n".encode(),
        writes=ONE,
        says=("Note: lines skipped before the header: 2.",),
        options=("--skip-lines", "2"),
    ),
    good(
        "GISAID's two header rows",
        "covv_subm_sample_id,covv_virus_name,covv_type\n"
        "Sample ID given by the submitting laboratory,Virus name,Type\nL-1,N-1,betacoronavirus\n",
        ONE,
        "Note: read as a GISAID table",
        "Note: line 2 is a second header row and is skipped.",
        "values in ignored columns: covv_type (1)",
    ),
    bad(
        "quote never closed",
        f'{H}\nL-1,N-1\n"L-2,N-2\nL-3,\nX,N-4\n',
        "line 3: a quote opened on this line is never closed",
        "line 4: public_identifier: is blank",
        'line 5: private_identifier: the group has no sample "X"',
    ),
    bad("quote never closed, last line", f'{H}\nL-1,N-1\nL-2,"N-2', "line 3: a quote opened on"),
    bad(
        "quote never closed, second line of a row",
        f'{H},a,b\nL-1,N-1,"a\nb","c\nX,N-2,,\n',
        "line 3: a quote opened on this line is never closed",
        'line 4: private_identifier: the group has no sample "X"',
    ),
    bad(
        "quote closed by a later one",
        f'{H}\nL-1,"N-1\nL-2,N-2\nL-3,"N-3"\nX,N-4\n',
        "line 2: text after the closing quote of a cell",
        "that begins on this line and ends on line 4",
        'line 5: private_identifier: the group has no sample "X"',
    ),
    bad("text after a quote", f'{H}\n"L-1"x,N-1\n', "line 2: text after the closing quote"),
)

CELLS = (
    good("white space around", f"{H}\n  L-1\t,\u2003N-1 \n", ONE),
    good("no-break spaces around", f"{H}\n\u00a0L-1\u00a0,\u00a0N-1\u00a0\n", ONE),
    bad(
        "blank cells",
        f'{H}\nL-1,\n,N-2\nL-3,"  "\nL-4,\u00a0\n',
        "line 2: public_identifier: is blank",
        "line 3: private_identifier: is blank",
        "line 4: public_identifier: is blank",
        "4 problems",
    ),
    good("128 characters", f"{H}\nL-1,{'n' * 128}\n", {"L-1": "n" * 128}),
    good("128 letters of two bytes", f"{H}\nL-1,{'é' * 128}\n", {"L-1": "é" * 128}),
    bad(
        "129 characters",
        f"{H}\nL-1,{'n' * 129}\n{'é' * 129},N-2\n",
        "line 2: public_identifier: is too long: 129 characters (maximum 128)",
        "line 3: private_identifier: is too long: 129 characters (maximum 128)",
    ),
    bad(
        "NUL",
        f"{H}\nL-1,N\x001\n",
        "line 2: public_identifier: contains a NUL (U+0000) at position 2",
    ),
    bad(
        "escape",
        f"{H}\nL-1,\x1b[31mN\n",
        "line 2: public_identifier: contains an escape character (U+001B)",
    ),
    bad("tab in quotes", f'{H}\nL-1,"N\t1"\n', "contains a tab (U+0009) at position 2"),
    bad("DEL", f"{H}\nL\x7f1,N-1\n", "private_identifier: contains a control character (U+007F)"),
    bad("C1", f"{H}\nL-1,N\x9b1\n", "public_identifier: contains a control character (U+009B)"),
    bad("lost letter", f"{H}\nL-1,N\ufffd1\n", "line 2: public_identifier: contains a replacement"),
    good(
        "letters beyond ASCII",
        f"{H}\né-lab,Ñ-日本/🧬\n",
        {"é-lab": "Ñ-日本/🧬"},
    ),
    good("formulas", f"{H}\n=1+1,@SUM(A1)\n", {"=1+1": "@SUM(A1)"}),
    Case(
        "words for missing values, allowed",
        f"{H}\n\\N,NULL\nNULL,\\N\n".encode(),
        writes={"\\N": "NULL", "NULL": "\\N"},
        options=("--allow-missing-words",),
    ),
    bad(
        "words for missing values and errors of a spreadsheet",
        f'{H}\nL-1,#N/A\nL-2,#REF!\nL-3,NA\nL-4,NULL\nL-5,1.20E+05\nL-6,"=""N-6"""\n',
        "line 2: public_identifier: contains the error #N/A",
        "line 3: public_identifier: contains the error #REF!",
        'line 4: public_identifier: is "NA", which usually means a missing value',
        "line 5: public_identifier: is ",
        'line 6: public_identifier: "1.20E+05" is in scientific notation',
        'line 7: public_identifier: is a formula; use its value instead: "N-6"',
    ),
    bad(
        "invisible and look-alike characters",
        f"{H}\nL-1,N-1\u200b\nL\u20112,N-2\n\uff2c-3,N-3\nL-4\u200b,N-4\nx\u2011y,N-5\n",
        "line 2: public_identifier: contains U+200B ZERO WIDTH SPACE at position 4",
        "U+2011 NON-BREAKING HYPHEN at position 2, which looks like '-'; did you mean \"L-2\"?",
        "it contains U+FF2C FULLWIDTH LATIN CAPITAL LETTER L at position 1, which looks like",
        'did you mean "L-3"?',
        'U+200B ZERO WIDTH SPACE at position 4, which is invisible; did you mean "L-4"?',
        "it contains U+2011 NON-BREAKING HYPHEN at position 2, which looks like '-'\n",
    ),
    Case(
        "a sample whose private identifier contains odd characters",
        f"{H}\nL\u20111,N-1\n".encode(),
        writes={"L\u20111": "N-1"},
        samples={"L\u20111": "mine"},
    ),
    good("backslashes", f"{H}\nback\\slash\\t,N\\1\\\\\n", {"back\\slash\\t": "N\\1\\\\"}),
    good(
        "SQL",
        f"{H}\n'); DROP TABLE aspen.samples; --,x'; DELETE FROM aspen.samples; --\n",
        {"'); DROP TABLE aspen.samples; --": "x'; DELETE FROM aspen.samples; --"},
    ),
    bad(
        "huge identifier",
        f"{H}\nL-1,{'n' * 200_000}\n",
        "line 2: public_",
        "is too long: 200000 characters (maximum 128)",
    ),
    good("huge cell elsewhere", f"{H},genome\nL-1,N-1,{'acgt' * 50_000}\nL-2,N-2,\n", TWO),
    bad(
        "cell beyond all measure",
        f"{H},genome\nL-1,N-1,{'a' * 1_100_000}\nX,N-2,\n",
        "line 2: a cell has more than 1,048,576 characters",
        "line 3: private_identifier: the group has no sample",
    ),
    good(
        "case tells identifiers apart",
        f"{H}\ncase,c-UP\nCASE,C-UP\n",
        {"case": "c-UP", "CASE": "C-UP"},
    ),
)

_LATE = f"{H},note\n" + f"L-1,N-1,{'x' * 70_000}\n"
_LATER = f"{H},note\n" + "".join(f"{lab},{new},{'x' * 600_000}\n" for lab, new in TWO.items())

BYTES = (
    bad(
        "Latin-1",
        f"{H}\nL-1,N-1\nL-2,caf".encode() + b"\xe9\n",
        "line 3: byte 0xE9 at offset 52 is not valid UTF-8",
        "--encoding cp1252",
    ),
    bad(
        "Latin-1 beyond 64 KiB",
        _LATE.encode() + b"L-2,\xe9,\n",
        f"line 3: byte 0xE9 at offset {len(_LATE) + 4:,} is not valid UTF-8",
    ),
    bad(
        "Latin-1 beyond 1 MiB",
        _LATER.encode() + b"L-3,\xe9,\n",
        f"line 4: byte 0xE9 at offset {len(_LATER) + 4:,} is not valid UTF-8",
    ),
    bad(
        "every line of Latin-1 and every other fault",
        f"{H},note\nL-1,é,\nL-2,,\nL-3,N-3,é\nX,N-4,\n".encode("latin-1"),
        "line 2: byte 0xE9 at offset 46",
        "line 3: public_identifier: is blank",
        "line 4: byte 0xE9 at offset 63",
        'line 5: private_identifier: the group has no sample "X"',
        "4 problems",
    ),
    bad("no cp1252 either", f"{H}\nL-1,".encode() + b"\x81\n", "byte 0x81", "--encoding latin-1"),
    bad("letter cut off at the end", f"{H}\nL-1,N-1\nL-2,".encode() + b"\xc3", "line 3: byte 0xC3"),
    Case(
        "cp1252, as said",
        f"{H}\né-lab,€-1\n".encode("cp1252"),
        says=("Note: read as cp1252.",),
        writes={"é-lab": "€-1"},
        options=("--encoding", "cp1252"),
    ),
    good(
        "UTF-16 LE with a mark",
        codecs.BOM_UTF16_LE + f"{H}\né-lab,N-1\n".encode("utf-16-le"),
        {"é-lab": "N-1"},
        "Note: read as UTF-16.",
    ),
    good(
        "UTF-16 BE with a mark",
        codecs.BOM_UTF16_BE + f"{H}\r\nL-1,N-1\r\n".encode("utf-16-be"),
        ONE,
        "Note: read as UTF-16.",
    ),
    bad("UTF-16 LE without", f"{H}\nL-1,N-1\n".encode("utf-16-le"), "--encoding utf-16-le"),
    bad("UTF-16 BE without", f"{H}\nL-1,N-1\n".encode("utf-16-be"), "--encoding utf-16-be"),
    Case(
        "UTF-16 LE, as said",
        f"{H}\nL-1,N-1\n".encode("utf-16-le"),
        writes=ONE,
        options=("--encoding", "utf-16-le"),
    ),
    good("UTF-32", codecs.BOM_UTF32_LE + f"{H}\nL-1,N-1\n".encode("utf-32-le"), ONE, "UTF-32"),
    Case(
        "an encoding nobody knows",
        H.encode(),
        2,
        ("Invalid value for --encoding: 'klingon'",),
        options=("--encoding", "klingon"),
    ),
    Case(
        "an encoding that makes no text",
        H.encode(),
        2,
        ("Invalid value for --encoding: 'rot13'",),
        options=("--encoding", "rot13"),
    ),
    Case(
        "mark and --encoding disagree",
        codecs.BOM_UTF8 + H.encode(),
        2,
        ("Remove --encoding",),
        options=("--encoding", "cp1252"),
    ),
    good("semicolons", "private_identifier;public_identifier\nL-1;N-1\n", ONE, "by a semicolon"),
    good("tabs", "private_identifier\tpublic_identifier\nL-1\tN-1\n", ONE, "separated by a tab"),
    good("vertical bars", "private_identifier|public_identifier\nL-1|N-1\n", ONE, "vertical bar"),
    Case(
        "commas, though told otherwise",
        f"{H}\nL-1,N-1\n".encode(),
        2,
        ("no column private_",),
        options=("--delimiter", "semicolon"),
    ),
    Case(
        "a delimiter that is none",
        f"{H}\n".encode(),
        2,
        ("Invalid value for --delimiter",),
        options=("--delimiter", '"'),
    ),
)


def _zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("ids.csv", f"{H}\nL-1,N-1\n")
    return file.getvalue()


def _unreadable(path: Path) -> None:
    path.write_text(f"{H}\n")
    path.chmod(0)


FILES = (
    good("gzip", gzip.compress(f"{H}\nL-1,N-1\n".encode()), ONE, "compressed with gzip"),
    good("zip archive of one file", _zip(), ONE, "Note: read from a zip archive: ids.csv."),
    good("xz", lzma.compress(f"{H}\nL-1,N-1\n".encode()), ONE, "compressed with xz"),
    bad("PDF", b"%PDF-1.7\n%\xe2\xe3\n1 0 obj\n", "is a PDF"),
    bad("random bytes", random.Random(1).randbytes(5_000), "is binary, not text"),
    bad("zeros", bytes(5_000), "is binary, not text"),
    bad("endless line", H.encode() + b"\n" + b"x" * 5_000_000, "a line has more than 4,194,304"),
    bad(
        "endless row",
        H.encode() + b'\n"' + b'\n","' * 100_000,
        "Line 2 of",
        "begins a row that does not end within",
    ),
    bad("endless header", b"a," * 20_000 + b"b\n", "has 20,001 columns (maximum 16,384)"),
    bad("empty", "", "is empty"),
    bad("byte order mark only", codecs.BOM_UTF8, "is empty"),
    bad("white space only", " \n\t\n\r\n  ", "is empty"),
    Case("folder", Path.mkdir, 2, ("is a directory",)),
    Case("missing file", lambda _path: None, 2, ("Cannot read ", "No such file")),
    Case("unreadable file", _unreadable, 2, ("Cannot read ", "Permission denied"), as_root=False),
)

PLANS = (
    bad(
        "private identifier twice",
        f"{H}\nL-1,N-1\nL-2,N-2\nL-1,N-3\n",
        "line 4: private_identifier: duplicate of line 2",
        "1 problem;",
    ),
    bad(
        "public identifier twice",
        f"{H}\nL-1,N-1\nL-2,N-2\nL-3,N-1\n",
        "line 4: public_identifier: duplicate of line 2",
    ),
    bad(
        "row twice",
        f"{H}\nL-1,N-1\nL-1,N-1\nL-1,N-1\n",
        "line 3: private_identifier: duplicate of line 2",
        "line 3: public_identifier: duplicate of line 2",
        "line 4: private_identifier: duplicate of line 2",
    ),
    bad("private identifier unknown", f"{H}\nL-1,N-1\nl-2,N-2\n", "line 3: ", 'no sample "l-2"'),
    bad(
        "public identifier held",
        f"{H}\nL-1,P-2\n",
        'line 2: public_identifier: "P-2" is already used by sample "L-2"',
    ),
    bad("held by one that is so already", f"{H}\nL-1,P-2\nL-2,P-2\n", "duplicate of line 2"),
    good("swap", f"{H}\nL-1,P-2\nL-2,P-1\n", {"L-1": "P-2", "L-2": "P-1"}),
    good(
        "cycle of three",
        f"{H}\nL-1,P-2\nL-2,P-3\nL-3,P-1\n",
        {"L-1": "P-2", "L-2": "P-3", "L-3": "P-1"},
    ),
    good(
        "chain",
        f"{H}\nL-1,P-2\nL-2,P-3\nL-3,P-4\nL-4,N-4\n",
        {"L-1": "P-2", "L-2": "P-3", "L-3": "P-4", "L-4": "N-4"},
        "3 identifiers move between samples in this file",
    ),
    bad(
        "chain to one that stays",
        f"{H}\nL-1,P-2\nL-2,P-3\nL-3,P-6\n",
        "line 4: ",
        '"P-6" is already used',
    ),
    good("as it is already", f"{H}\nL-1,P-1\nL-2,P-2\n", {}, "Nothing to change"),
    good("partly as it is already", f"{H}\nL-1,P-1\nL-2,N-2\n", {"L-2": "N-2"}, "1 unchanged"),
    Case(
        "held in other groups",
        f"{H}\nL-1,P-1\n".encode(),
        writes={"L-1": "P-1"},
        samples={"L-1": "mine"},
    ),
    Case(
        "10,000 rows",
        (H + "".join(f"\n{lab},N-{lab}" for lab in _MANY)).encode(),
        says=("10,000 samples updated",),
        writes={lab: f"N-{lab}" for lab in _MANY},
        samples=_MANY,
    ),
    Case(
        "10,000 rows, each takes the next one's",
        (H + "".join(f"\nM-{n},P-{n + 1}" for n in range(10_000))).encode(),
        says=("9,999 identifiers move between samples",),
        writes={f"M-{n}": f"P-{n + 1}" for n in range(10_000)},
        samples=_MANY,
    ),
    bad(
        "more problems than a screen holds",
        H + "".join(f"\nX-{n},N-{n}" for n in range(250)),
        'line 201: private_identifier: the group has no sample "X-199"',
        "and 50 more. Full list:",
        "250 problems",
    ),
)

CASES = (*HEADERS, *LINES, *CELLS, *BYTES, *FILES, *PLANS)


def _first_words(ended: Ended) -> str:
    """Return the first problem, or else the error, or else the success message."""
    lines = ended.err.splitlines()
    for lead in ("line ", "Error: ", "✓ "):
        for line in lines:
            if line.startswith(lead):
                return line
    return ""


def _print_table(lab: Lab) -> None:
    sys.stdout.write("| mapping | exit | first message | rows written |\n|---|---|---|---|\n")
    for case in CASES:
        if os.geteuid() == 0 and not case.as_root:
            sys.stdout.write(f"| {case.name} | | not tried: root may read everything | |\n")
            continue
        with tempfile.TemporaryDirectory() as folder:
            ended = case.run(lab, Path(folder))
            words = _first_words(ended).replace(folder + "/", "").replace("|", "\\|")
        wrong = "" if (ended.code, ended.written) == (case.code, case.writes) else " (not expected)"
        cells = (case.name, f"{ended.code}{wrong}", words, f"{len(ended.written):,}")
        sys.stdout.write(f"| {' | '.join(cells)} |\n")


@contextmanager
def _own_database(home: Path) -> Iterator[str]:
    from aspen.local.postgres.prepare import prepare
    from aspen.local.postgres.server import SUPERUSER, Cluster

    home.chmod(0o755)  # the server's account needs to pass through
    cluster = Cluster(home)
    cluster.up()
    try:
        prepare(cluster)
        yield cluster.url(user=SUPERUSER)
    finally:
        cluster.down()
        cluster.reset()


def main() -> None:
    """Print the table."""
    from aspen.database.engine import normalize_url

    with tempfile.TemporaryDirectory(prefix="aspen-cases-") as folder:
        given = os.environ.get("ASPEN_DATABASE_URL_LOCAL")
        if given:
            address = normalize_url(given).render_as_string(hide_password=False)
            _print_table(Lab(address, Path(folder)))
        else:
            with _own_database(Path(folder)) as address:
                _print_table(Lab(address, Path(folder)))


if __name__ == "__main__":
    main()
