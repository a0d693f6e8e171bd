"""SQL at the prompt while it is typed: completion and colors after ``%sql`` and its like."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.lexers import Lexer, PygmentsLexer

_MAGIC = r"(?:sql|explain(?:\s+analyze)?|watch\s+\S+|save\s+\S+)"
_LINE = re.compile(rf"^\s*(?:[\w.\[\]'\", ]+=\s*)?%{_MAGIC}(?=\s|$)(?:\s+--?\w[\w-]*)*\s?")
_CELL = re.compile(rf"^\s*%%{_MAGIC}(?=\s|$)[^\n]*\n?")
_WORD = re.compile(r"(?:(?P<qualifier>\w+)\.)?(?P<word>\w*)$")
_BEFORE_TABLES = frozenset({"FROM", "JOIN", "UPDATE", "INTO", "TABLE", "TRUNCATE", "ONLY"})
_NO_ALIAS = frozenset(
    {
        *("ON", "USING", "WHERE", "SET", "JOIN", "LEFT", "RIGHT", "INNER", "OUTER", "FULL"),
        *("CROSS", "NATURAL", "LATERAL", "GROUP", "ORDER", "HAVING", "LIMIT", "OFFSET", "FETCH"),
        *("UNION", "INTERSECT", "EXCEPT", "VALUES", "SELECT", "RETURNING", "FOR", "WINDOW"),
        *("TABLESAMPLE", "DEFAULT"),
    }
)
_PATIENCE_S = 1.0  # the names of a slow database come with a later key
# Tables and their columns that names without a schema mean, then functions.
_TABLES = """
SELECT c.relname, array_agg(a.attname::text ORDER BY a.attnum)
  FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
 WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND a.attnum > 0 AND NOT a.attisdropped
   AND pg_table_is_visible(c.oid)
   AND (c.relnamespace <> 'pg_catalog'::regnamespace OR c.relkind = 'v')
 GROUP BY c.oid, c.relname
"""
_FUNCTIONS = """
SELECT DISTINCT proname FROM pg_proc
 WHERE pg_function_is_visible(oid) AND prokind <> 'p'
   AND prorettype NOT IN ('internal'::regtype, 'trigger'::regtype, 'event_trigger'::regtype)
   AND NOT 'internal'::regtype = ANY (proargtypes) AND proname !~ '^(_|pg_stat_get|RI_)'
"""


def _words(text: str) -> list[str]:
    """Return the names and signs of a text, such as a part of a statement."""
    from aspen.database.driver import tokens  # the prompt appears before the driver is loaded

    return [word for kind, word, _ in tokens(text) if kind in {"name", "sign"}]


@dataclass(frozen=True)
class Names:
    """The names in a database: the columns of each table, and the functions."""

    tables: Mapping[str, Sequence[str]]
    functions: Sequence[str]


def read_names(connection: Any) -> Names:
    """Return the names that a psycopg2 connection sees; it is rolled back.

    A plain cursor is used, so that a profile of the console does not contain these queries.
    """
    from psycopg2.extensions import cursor as plain_cursor

    with connection.cursor(cursor_factory=plain_cursor) as cursor:
        cursor.execute(_TABLES)
        tables = {name: tuple(columns) for name, columns in cursor}
        cursor.execute(_FUNCTIONS)
        functions = tuple(sorted(name for (name,) in cursor))
    connection.rollback()
    return Names(tables, functions)


class NameCache:
    """The names of the console's database, read in a thread when SQL is first typed."""

    def __init__(self, read: Callable[[], Names]):
        self._read = read
        self._lock = threading.Lock()
        self._ready: threading.Event | None = None
        self._names = Names({}, ())

    def begin(self) -> threading.Event:
        """Begin reading, unless the names are known or being read."""
        with self._lock:
            if self._ready is None:
                self._ready = threading.Event()
                threading.Thread(target=self._load, args=(self._ready,), daemon=True).start()
            return self._ready

    def get(self) -> Names:
        """Return the names; without those of a database that takes longer than a second."""
        self.begin().wait(_PATIENCE_S)
        return self._names

    def forget(self) -> None:
        """Read the names again when they are next needed."""
        with self._lock:
            self._ready = None

    def _load(self, ready: threading.Event) -> None:
        try:
            self._names = self._read()
        except Exception:  # noqa: BLE001 - the statement itself will report what is wrong
            self.forget()
        finally:
            ready.set()


def sql_start(text: str) -> int | None:
    """Return the position in a cell at which its SQL begins, or None if it is Python."""
    if cell := _CELL.match(text):
        return cell.end()
    line_start = text.rfind("\n") + 1
    if line := _LINE.match(text[line_start:]):
        return line_start + line.end()
    return None


class SqlCompleter(Completer):
    """Completion of SQL after a magic that takes it; another completer for everything else."""

    def __init__(self, other: Completer, names: NameCache):
        self._other = other
        self._names = names

    def get_completions(
        self, document: Document, complete_event: CompleteEvent
    ) -> Iterable[Completion]:
        """Yield completions for the text before the cursor."""
        start = sql_start(document.text_before_cursor)
        if start is None or document.cursor_position < start:
            yield from self._other.get_completions(document, complete_event)
            return
        before = document.text_before_cursor[start:]
        yield from completions(before, document.text_after_cursor, self._names.get())


def completions(before: str, after: str, names: Names) -> Iterator[Completion]:
    """Yield what may follow the first part of a statement, the most specific first."""
    match = _WORD.search(before)
    assert match is not None  # noqa: S101 - both of its parts may be empty
    word, qualifier = match["word"], match["qualifier"]
    words = _words(before[: match.start()])
    if before[: match.start()].count("'") % 2:
        return  # in a string
    mentioned = _mentioned(f"{before} {after}", names)
    if qualifier is not None:
        table = mentioned.get(qualifier.lower(), qualifier.lower())
        yield from _of(names.tables.get(table, ()), word, f"column of {table}")
        if qualifier.lower() == "aspen":
            yield from _of(names.tables, word, "table")
        return
    if words and (words[-1].upper() in _BEFORE_TABLES or _continues_tables(words)):
        yield from _of(sorted(names.tables), word, "table")
        return
    seen: set[str] = set()
    for table in dict.fromkeys(mentioned.values()):
        columns = [name for name in names.tables[table] if name not in seen]
        seen.update(columns)
        yield from _of(columns, word, f"column of {table}")
    aliases = [name for name in mentioned if name not in names.tables]
    yield from _of(aliases, word, "alias")
    if not word:
        return
    if not mentioned:
        every = {name for columns in names.tables.values() for name in columns}
        yield from _of(sorted(every), word, "column")
    yield from _of(sorted(names.tables), word, "table")
    yield from _of(names.functions, word, "function", "(")
    yield from _of(_keywords(upper=word.isupper()), word, "keyword")


def _of(names: Iterable[str], word: str, kind: str, ending: str = "") -> Iterator[Completion]:
    for name in names:
        if name.lower().startswith(word.lower()):
            quoted = name if re.fullmatch(r"[A-Z]+|[a-z_][a-z0-9_$]*", name) else f'"{name}"'
            yield Completion(
                quoted + ending, start_position=-len(word), display=name, display_meta=kind
            )


def _continues_tables(words: Sequence[str]) -> bool:
    """Return True after a comma in a list of tables: ``FROM samples s, ...``."""
    if words[-1] != ",":
        return False
    for word in reversed(words):
        if word.upper() in _BEFORE_TABLES:
            return True
        if word.upper() in _NO_ALIAS or word in {"(", ")"}:
            return False
    return False


def _mentioned(text: str, names: Names) -> dict[str, str]:
    """Return the tables that a statement names, by alias and by name."""
    words = _words(text)
    found: dict[str, str] = {}
    for place, word in enumerate(words):
        is_listed = place and (
            words[place - 1].upper() in _BEFORE_TABLES or _continues_tables(words[:place])
        )
        if not is_listed:
            continue
        rest = words[place + 1 :]
        table = word.strip('"').lower()
        if rest[:1] == ["."] and len(rest) > 1:
            table, rest = rest[1].strip('"').lower(), rest[2:]
        if table not in names.tables:
            continue
        if rest and rest[0].upper() == "AS":
            rest = rest[1:]
        has_alias = rest and re.fullmatch(r"\w+", rest[0]) and rest[0].upper() not in _NO_ALIAS
        found[rest[0].lower() if has_alias else table] = table
    return found


@cache
def _keywords(*, upper: bool) -> tuple[str, ...]:
    from pygments.lexers._postgres_builtins import KEYWORDS

    return tuple(sorted(word.upper() if upper else word.lower() for word in KEYWORDS))


def prepare() -> None:
    """Load what the first completion and the first colors need: 70 ms, before any SQL is typed."""
    _words("SELECT 1")
    _sql().lex_document(Document("SELECT 1"))(0)
    for upper in (True, False):
        _keywords(upper=upper)


class SqlLexer(Lexer):
    """Colors of SQL after a magic that takes it; another lexer for everything else."""

    def __init__(self, other: Lexer, begin: Callable[[], object]):
        self._other = other
        self._begin = begin

    def lex_document(self, document: Document) -> Callable[[int], StyleAndTextTuples]:
        """Return a function from a line number to the styled text of that line."""
        python = self._other.lex_document(document)
        cell = _CELL.match(document.text)
        lines = document.lines
        starts = {0: len(lines[0])} if cell else _line_starts(lines)
        if not starts:
            return python
        self._begin()  # so that the names are known when Tab is pressed
        if cell:
            rest = _sql().lex_document(Document("\n".join(lines[1:])))
            return lambda line: [("", lines[0])] if line == 0 else rest(line - 1)

        def line_of(number: int) -> StyleAndTextTuples:
            if number not in starts:
                return python(number)
            text, start = lines[number], starts[number]
            colored = _sql().lex_document(Document(text[start:]))(0)
            return [("", text[:start]), *colored]

        return line_of


def _line_starts(lines: Sequence[str]) -> dict[int, int]:
    return {
        number: match.end() for number, line in enumerate(lines) if (match := _LINE.match(line))
    }


@cache
def _sql() -> Lexer:
    from pygments.lexers import PostgresLexer

    return PygmentsLexer(PostgresLexer, sync_from_start=True)
