"""The two streams: what a user sees, and what a user is asked."""

from __future__ import annotations

import contextlib
import io
import re
import sys
import time
from collections import namedtuple
from collections.abc import Iterator
from typing import Any

import pexpect
import pytest

from aspencli.cli.output.console import SHADES, Output
from aspencli.cli.output.formats import Column
from aspencli.errors import RefusedError

COLUMNS = (
    Column("id", "Id", right=True),
    Column("name", "Name"),
    Column("aside", "Aside", secondary=True),
)
ROWS = [{"id": 1, "name": "Ada", "aside": "x"}, {"id": 22, "name": "Bob", "aside": "y"}]
HOSTILE = "[red]\x1b[31m:smile:\x9b2J\u202e"


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


class Captured:
    """An `Output`, and what it wrote."""

    def __init__(self, form: str | None = None, *, terminal: bool = False):
        kind = Terminal if terminal else io.StringIO
        self.stdout, self.stderr = kind(), kind()
        self.output = Output(form, stdout=self.stdout, stderr=self.stderr)

    @property
    def out(self) -> str:
        return self.stdout.getvalue()

    @property
    def err(self) -> str:
        return self.stderr.getvalue()


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.setenv("TERM", "xterm-256color")


def _plain(text: str) -> str:
    return re.sub(r"\x1b\[[\d;]*m", "", text)


# Formats


def test_rows_are_table_on_terminal_and_tsv_otherwise() -> None:
    piped, shown = Captured(), Captured(terminal=True)
    for each in (piped, shown):
        each.output.rows(COLUMNS, ROWS)
    assert piped.out == "id\tname\taside\n1\tAda\tx\n22\tBob\ty\n"
    lines = [line.rstrip() for line in _plain(shown.out).splitlines()]
    assert lines == ["Id  Name  Aside", " 1  Ada   x", "22  Bob   y"]


def test_explicit_format_is_used_on_terminal() -> None:
    shown = Captured("jsonl", terminal=True)
    shown.output.rows(COLUMNS, ROWS[:1])
    assert shown.out == '{"id": 1, "name": "Ada", "aside": "x"}\n'


SECONDARY = (
    Column("name", "Name", whole=True),
    Column("place", "Place", secondary=True),
    Column("note", "Note"),
    Column("aside", "Aside", secondary=True),
)
LONG = {
    "name": "hCoV-19/USA/CA-RCPHL-0123456789/2023",
    "place": "North America / USA / California",
    "note": "submitted late, see e-mail",
    "aside": "x" * 30,
}


@pytest.mark.parametrize(
    ("width", "hidden"),
    [("140", []), ("100", []), ("80", ["Aside"]), ("70", ["Place", "Aside"])],
)
def test_secondary_columns_shrink_and_are_hidden_first(
    width: str, hidden: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    each = Captured(terminal=True)
    each.output.rows(SECONDARY, [LONG])
    heading, line = _plain(each.out).splitlines()
    assert heading.split() == [c.title for c in SECONDARY if c.title not in hidden]
    assert len(line) <= int(width)
    assert LONG["name"] in line
    note = f"Columns hidden to fit {width} characters: {', '.join(hidden)}. "
    assert each.err == (note + "Use a wider terminal, or -o json.\n" if hidden else "")
    machine = Captured("csv", terminal=True)
    machine.output.rows(SECONDARY, [LONG])
    assert machine.out.startswith("name,place,note,aside\n")


def test_columns_that_fit_are_shown_on_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    each = Captured(terminal=True)
    each.output.rows(COLUMNS, ROWS)
    assert "Aside" in each.out
    assert each.err == ""


def test_the_note_about_a_file_does_not_advise_a_wider_terminal() -> None:
    each = Captured("table")
    each.output.rows((*WHOLE, *SECONDARY[1:]), [LONG | {"id": 1, "name": "x" * 90, "aside": "y"}])
    assert each.err.startswith("Columns hidden to fit 120 characters: ")
    assert each.err.endswith(". Use -o json.\n")


def test_note_about_hidden_columns_is_printed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    each = Captured(terminal=True)
    each.output.rows(SECONDARY, [LONG])
    each.output.rows(SECONDARY, [LONG])
    each.output.preview(SECONDARY, [LONG])
    assert each.err.count("Columns hidden") == 1


def test_numbers_are_never_truncated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    columns = (Column("name", "Name"), Column("count", "Count", right=True))
    each = Captured(terminal=True)
    each.output.rows(columns, [{"name": "x" * 40, "count": "1,234,567,890"}])
    assert _plain(each.out).splitlines()[1] == "x" * 14 + "…  1,234,567,890"


NAME = "hCoV-19/USA/CA-RCPHL-0123456789/2023"
WHOLE = (Column("id", "Id", whole=True), Column("name", "Name", whole=True), Column("aside", "A"))


@pytest.mark.parametrize("width", ["60", "140"])
def test_identifiers_are_never_truncated(width: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", width)
    each = Captured("table", terminal=True)
    each.output.rows(WHOLE, [{"id": 1, "name": NAME, "aside": ""}])
    lines = _plain(each.out).splitlines()
    assert max(map(len, lines)) <= int(width)
    assert NAME in lines[1]


def test_rows_become_records_when_identifiers_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "44")
    each = Captured("table", terminal=True)
    columns = (*WHOLE[:2], Column("other", "Other", whole=True), Column("aside", "A"))
    row = {"id": 1, "name": NAME, "other": NAME[::-1], "aside": "words " * 8}
    each.output.rows(columns, [row, row | {"id": 2}])
    record = [
        "Id     1",
        f"Name   {NAME}",
        f"Other  {NAME[::-1]}",
        "A      words words words words words words",
        "       words words",
    ]
    assert _plain(each.out).splitlines() == [*record, "", "Id     2", *record[1:]]
    assert each.err == ""


def test_identifier_in_record_does_not_wrap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    each = Captured("table", terminal=True)
    each.output.record(WHOLE, {"id": 1, "name": NAME, "aside": "some more words"})
    assert _plain(each.out).splitlines() == [
        *("Id    1", f"Name  {NAME}", "A     some more", "      words")
    ]


SQL = "SELECT s.id, s.private_identifier, s.public_identifier FROM samples AS s WHERE s.id = $1"


def test_sql_cell_is_shortened_inside_column_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    each = Captured("table", terminal=True)
    columns = (Column("pid", "PID", right=True), Column("query", "Statement", sql=True))
    each.output.rows(columns, [{"pid": 4711, "query": SQL}])
    line = _plain(each.out).splitlines()[1]
    assert line == "4711  SELECT s.id, s.private_identifier, ... FROM samples AS s WHERE s.id = $1"
    assert len(line) <= 80


def test_blank_text_of_missing_values_appears_only_for_people() -> None:
    columns = (Column("id", "Id"), Column("after", "New", blank=lambda _row: "(cleared)"))
    row = {"id": 1, "after": None}
    each = Captured("table")
    each.output.rows(columns, [row])
    each.output.record(columns, row)
    each.output.preview(columns, [row])
    assert each.out.count("(cleared)") == 2
    assert each.err.count("(cleared)") == 1
    machine = Captured("json")
    machine.output.rows(columns, [row])
    assert '"after": null' in machine.out


def test_long_table_is_streamed_with_one_heading() -> None:
    each = Captured("table")
    written = []

    def rows() -> Iterator[dict[str, Any]]:
        for number in range(3_000):
            written.append(len(each.out))
            yield {"id": number, "name": "x" * (3 + number % 2), "aside": "y" * (number == 5)}

    each.output.rows(COLUMNS, rows())
    assert written[0] == 0 < written[-1]
    heading, *lines = each.out.splitlines()
    assert heading.split() == ["Id", "Name", "Aside"]
    assert [int(line.split()[0]) for line in lines] == list(range(3_000))
    # Cells align with the heading within each part of the table. ("999" is one narrower.)
    assert {line.index("x") for line in lines[:1_000]} == {heading.index("Name")}
    assert len({line.index("x") for line in lines[1_000:]}) == 1


def test_long_table_keeps_column_widths_for_narrower_later_rows() -> None:
    each = Captured("table")
    rows = [{"id": n, "name": "long name" if n == 3 else "x", "aside": "y"} for n in range(2_500)]
    rows[0]["id"] = 123_456
    each.output.rows(COLUMNS, iter(rows))
    heading, *lines = each.out.splitlines()
    assert {line.index("y") for line in lines} == {heading.index("Aside")}


@pytest.mark.parametrize("form", ["table", "json", "jsonl", "csv", "tsv"])
@pytest.mark.parametrize("width", ["140", "20"])
def test_named_tuples_print_like_mappings(
    form: str, width: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    kind = namedtuple("kind", ["aside", "name", "extra", "id"])
    tuples = [kind(None if n % 2 else "x", NAME, "=1", n) for n in range(300)]
    columns = (*WHOLE[:2], Column("aside", "A", blank=lambda row: str(row["extra"])))
    mapped, tupled = Captured(form, terminal=True), Captured(form, terminal=True)
    mapped.output.rows(columns, [row._asdict() for row in tuples])
    tupled.output.rows(columns, iter(tuples))
    assert tupled.out == mapped.out


def test_part_of_long_table_looks_like_small_table() -> None:
    rows = [
        {"id": 10_000 + n, "name": "Zoë" if n % 3 else "Ada", "aside": "y"} for n in range(2_500)
    ]
    long, small = Captured("table"), Captured("table")
    long.output.rows(COLUMNS, iter(rows))
    small.output.rows(COLUMNS, rows[-20:])
    assert long.out.splitlines()[0] == small.out.splitlines()[0]
    assert long.out.splitlines()[-20:] == small.out.splitlines()[1:]


def test_later_identifier_wider_than_table_is_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    wide = "x" * 90
    each = Captured("table", terminal=True)
    rows = [
        {"id": n, "name": wide if n == 2_345 else "n", "aside": "long " * 20} for n in range(2_500)
    ]
    each.output.rows(WHOLE, iter(rows))
    _heading, *lines = _plain(each.out).splitlines()
    assert [line.split()[0] for line in lines] == [str(n) for n in range(2_500)]
    assert wide in lines[2_345]
    assert lines[2_345].endswith("…")
    assert max(map(len, lines[:2_000])) <= 60


def test_other_text_is_truncated_to_keep_row_on_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    each = Captured("table", terminal=True)
    each.output.rows(WHOLE, [{"id": 1, "name": NAME, "aside": "long " * 20}])
    (line,) = _plain(each.out).splitlines()[1:]
    assert NAME in line
    assert line.rstrip().endswith("…")


def test_records_show_one_field_per_line() -> None:
    each = Captured("table")
    each.output.records(COLUMNS, ROWS)
    lines = [line.rstrip() for line in each.out.splitlines()]
    assert lines == [
        "Id     1",
        "Name   Ada",
        "Aside  x",
        "",
        "Id     22",
        "Name   Bob",
        "Aside  y",
    ]
    machine = Captured("tsv")
    machine.output.records(COLUMNS, ROWS)
    assert machine.out.count("\n") == 3


@pytest.mark.parametrize("form", ["table", "json", "jsonl", "csv", "tsv"])
def test_empty_result_message_is_written_to_stderr(form: str) -> None:
    each = Captured(form)
    each.output.rows(COLUMNS, iter([]), empty="nothing found")
    assert each.err == "nothing found\n"


@pytest.mark.parametrize("form", ["json", "jsonl", "csv", "tsv"])
def test_failed_query_leaves_stdout_empty(form: str) -> None:
    def rows() -> Iterator[dict[str, Any]]:
        yield {"id": 1 // len(each.out), "name": "", "aside": ""}

    each = Captured(form)
    with pytest.raises(ZeroDivisionError):
        each.output.rows(COLUMNS, rows())
    assert each.out == ""


# Text from data


@pytest.mark.parametrize("terminal", [True, False])
def test_data_cannot_inject_markup_or_escape_sequences(terminal: bool) -> None:
    each = Captured("table", terminal=terminal)
    row = {"id": 1, "name": HOSTILE, "aside": HOSTILE}
    each.output.rows(COLUMNS, [row])
    each.output.record(COLUMNS, row)
    each.output.preview(COLUMNS, [row])
    for say in (each.output.info, each.output.done, each.output.warn, each.output.hint):
        say(HOSTILE)
    each.output.error(HOSTILE, hint=HOSTILE, details=[HOSTILE])
    for written in (_plain(each.out), _plain(each.err)):
        assert "[red]\\x1b[31m:smile:\\x9b2J\\u202e" in written
        assert not set(written) & set("\x1b\x9b\u202e")


@pytest.mark.parametrize("wish", [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_no_color_or_dumb_terminal_writes_no_escape_sequences(
    wish: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(*wish)
    each = Captured(terminal=True)
    each.output.rows(COLUMNS, ROWS)
    each.output.record(COLUMNS, ROWS[0])
    each.output.error("failed", hint="mend it")
    assert "\x1b" not in each.out + each.err


def test_messages_go_to_stderr_only() -> None:
    each = Captured()
    each.output.info("reading")
    each.output.done("done")
    each.output.warn("3 rows skipped")
    each.output.hint("look")
    each.output.error("failed", hint="mend it", details=["line 2", "line 3"])
    assert each.out == ""
    assert each.err == (
        "reading\n✓ done\nWarning: 3 rows skipped\n→ look\n"
        "Error: failed\n  line 2\n  line 3\n→ mend it\n"
    )


def test_preview_is_written_to_stderr_and_limited() -> None:
    each = Captured("json")
    each.output.preview(COLUMNS, [ROWS[0]] * 20, limit=3)
    assert each.out == ""
    assert each.err.count("Ada") == 3


# Questions


def test_confirm_is_refused_without_terminal() -> None:
    each = Captured()
    with pytest.raises(RefusedError, match="not a terminal"):
        each.output.confirm("Go on?")


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [("y", True), ("YES", True), ("n", False), ("", False), ("yep", False), ("\x04", False)],
)
def test_confirm_accepts_only_y_or_yes(answer: str, outcome: bool) -> None:
    script = (
        "from aspencli.cli.output.console import Output; print('said', Output().confirm('Go on?'))"
    )
    child = pexpect.spawn(sys.executable, ["-c", script], encoding="utf-8", timeout=120)
    child.expect(r"Go on\? \[y/N\]")
    if answer == "\x04":
        child.sendeof()
    else:
        child.sendline(answer)
    child.expect(f"said {outcome}")
    child.close()


def test_confirm_with_no_input_is_refused_on_terminal() -> None:
    script = (
        "from aspencli.cli.output.console import Output\n"
        "from aspencli.errors import RefusedError\n"
        "try: Output(no_input=True).confirm('Go on?')\n"
        "except RefusedError: print('refused')\n"
    )
    child = pexpect.spawn(sys.executable, ["-c", script], encoding="utf-8", timeout=120)
    child.expect("refused")
    child.close()


_TWO_QUESTIONS = """
import sys
from aspencli.errors import RefusedError
from aspencli.cli.output.console import SHADES, Output
sys.stderr.write("working\\n")
sys.stdin.readline() if sys.argv[1:] == ["read"] else None
import time; time.sleep(0.3)
try:
    print("said", ascii(Output().ask("Name?")))
    print("then", ascii(Output().ask("Next?")))
except RefusedError:
    print("refused")
"""


def _asking(*arguments: str) -> pexpect.spawn:
    child = pexpect.spawn(
        sys.executable, ["-c", _TWO_QUESTIONS, *arguments], encoding="utf-8", timeout=120
    )
    child.expect("working")
    return child


@pytest.mark.parametrize(
    ("reader", "early"),
    [((), "prod\n" * 200), ((), "pro"), ((), "\x04"), (("read",), "\x1b[200~y\x1b[201~\nprod\n")],
)
def test_ask_discards_input_typed_before_question(reader: tuple[str, ...], early: str) -> None:
    child = _asking(*reader)
    child.send("first\n" * len(reader) + early)
    child.expect(r"Name\?")
    child.sendline("mine")
    child.expect("said 'mine'")
    child.expect(r"Next\?")
    child.sendline("other")
    child.expect("then 'other'")
    child.close()


@pytest.mark.parametrize("typed", [" prod ", "\u00a0prod", "\x1b[200~prod\x1b[201~"])
def test_ask_returns_answer_exactly_as_typed(typed: str) -> None:
    child = _asking()
    child.expect(r"Name\?")
    child.sendline(typed)
    child.expect_exact(f"said {typed!a}")
    child.close()


def test_ask_rejects_paste_of_several_lines() -> None:
    child = _asking()
    child.expect(r"Name\?")
    child.send("prod\naspencli next\n")
    child.expect("Several lines arrived at once")
    child.expect(r"Name\?")
    child.sendline("prod")
    child.expect("said 'prod'")
    for _ in range(3):
        child.expect(r"Next\?")
        child.send("y\ny\n")
    child.expect("refused")
    child.close()


def test_ask_ignores_answer_without_line_break() -> None:
    child = _asking()
    child.expect(r"Name\?")
    child.send("prod\x04\x04")
    child.expect("said ''")
    child.close()


# Progress


def test_progress_is_silent_without_terminal() -> None:
    each = Captured()
    with each.output.progress("Reading", total=3) as tick:
        tick(1)
        time.sleep(1.2)
        tick(3)
    assert each.out + each.err == ""


def test_quick_work_shows_no_progress_bar() -> None:
    each = Captured(terminal=True)
    with each.output.progress("Reading", total=3) as tick:
        tick(3)
    assert "Reading" not in each.err


def test_slow_work_shows_progress_bar_on_stderr() -> None:
    each = Captured(terminal=True)
    with each.output.progress("Reading [red]", total=3) as tick:
        tick(2)
        time.sleep(1.4)
    assert "Reading [red]" in _plain(each.err)
    assert "2/3" in _plain(each.err)
    assert each.out == ""


def test_error_ends_progress_bar_and_restores_cursor() -> None:
    each = Captured(terminal=True)
    with contextlib.suppress(ZeroDivisionError), each.output.progress("Reading") as tick:
        time.sleep(1.2)
        tick(1 // 0)
    assert "\x1b[?25h" in each.err  # the cursor is visible again


def test_download_progress_shows_bytes() -> None:
    each = Captured(terminal=True)
    with each.output.transfer("Loading") as tick:
        tick(1_000_000, None)
        tick(2_000_000, 8_000_000)
        time.sleep(1.4)
    assert "2.0/8.0 MB" in _plain(each.err)


def test_download_progress_is_silent_without_terminal() -> None:
    each = Captured()
    with each.output.transfer("Loading") as tick:
        tick(1, 2)
    assert each.out + each.err == ""


BACKGROUNDS = {"white": "ffffff", "black": "000000", "GNOME": "171421", "Solarized": "002b36"}


def _shade(number: int) -> str:
    """Return an entry of the 6 x 6 x 6 color cube in hexadecimal."""
    steps = (0, 95, 135, 175, 215, 255)
    red, green, blue = (number - 16) // 36, (number - 16) // 6 % 6, (number - 16) % 6
    return f"{steps[red]:02x}{steps[green]:02x}{steps[blue]:02x}"


def _luminance(color: str) -> float:
    """Return the relative luminance as WCAG 2 defines it."""
    parts = [int(color[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("background", BACKGROUNDS.values(), ids=BACKGROUNDS)
@pytest.mark.parametrize("style", SHADES)
def test_every_color_can_be_read_on_light_and_dark(style: str, background: str) -> None:
    low, high = sorted((_luminance(_shade(SHADES[style])), _luminance(background)))
    assert (high + 0.05) / (low + 0.05) >= 3


@pytest.mark.parametrize(
    ("term", "codes"),
    [
        ("xterm-256color", ["38;5;28", "0", "38;5;136", "0", "38;5;31", "0", "1;38;5;196", "0"]),
        ("xterm", ["1", "0"] * 4),
        ("dumb", []),
    ],
)
def test_messages_use_colors_where_the_terminal_has_them(
    term: str, codes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", term)
    monkeypatch.delenv("COLORTERM", raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    each = Captured(terminal=True)
    for say in (each.output.done, each.output.warn, each.output.hint, each.output.error):
        say("x")
    assert re.findall(r"\x1b\[([\d;]*)m", each.err) == codes


PLACES = (Column("id", "Id", whole=True), Column("place", "Place with a long title", tail=True))


@pytest.mark.parametrize(
    ("place", "shown"),
    [
        ("North America / USA / California / San Mateo County", "1   …San Mateo County"),
        (
            "North America / USA / California / A county with a long name",
            "1   …ty with a long name",
        ),
        ("Asia / Japan", "1   Asia / Japan"),
        ("Asia / 日本 / 東京都千代田区一番町", "1   …京都千代田区一番町"),
    ],
)
def test_places_lose_their_beginning(
    place: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "24")
    each = Captured("table", terminal=True)
    each.output.rows(PLACES, [{"id": 1, "place": place}])
    assert _plain(each.out).splitlines() == ["Id  Place with a long t…", shown]


def test_fields_of_an_object_stay_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    each = Captured("table", terminal=True)
    member = {"id": 10, "name": "Mo Multi", "email": "multi@example.org", "note": "x y " * 10}
    columns = (Column("members", "Members"), Column("about", "About"))
    each.output.record(columns, {"members": [member], "about": "one, two " * 4})
    assert _plain(each.out).splitlines() == [
        "Members  id: 10, name: Mo Multi,",
        "         email: multi@example.org,",
        "         note: x y x y x y x y x y x y x",
        "         y x y x y x y",
        "About    one, two one, two one, two one,",
        "         two",
    ]
