"""SQL expressions that mask values as they are read, so that no original leaves the server.

A value is replaced by the beginning of SHA-256 over a key and the value. The key is a setting of
the session, so it is in no statement, and in no log. Once it is discarded, no one can compute the
hash of a name that they suspect. The same value has the same hash in every column, so references by
name still hold.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aspen.database.settings import sql_literal
from aspencli.copies.choices import Choice, Genomes, Trees
from aspencli.copies.rules import FAKE, Rule, Rules, TableRules

KEY = "aspencli.copy_key"
DAYS = "aspencli.copy_days"
"""The settings of the session with the key, and with the number of days that dates move."""
SET_DAYS = (
    f"SELECT set_config('{DAYS}',"
    f" (-14 - ('x' || left(current_setting('{KEY}'), 7))::bit(28)::int % 90)::text, true)"
)
"""The statement that derives the number of days from the key: 14 to 103, into the past."""
MAKE_KEY = (
    f"SELECT set_config('{KEY}', encode(sha256(convert_to(gen_random_uuid()::text"
    " || gen_random_uuid() || gen_random_uuid(), 'UTF8')), 'hex'), true)"
)
"""The statement with which the server makes a key for the transaction, behind a pooler."""
HASH = "{20}"
PLACE = re.compile(r"\{(\d+)\}")
"""The place of the hash in the form of a masked value, with its length."""
_DAY = r"^[12]\d{3}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])"
_JSON = frozenset({"json", "jsonb"})


@dataclass(frozen=True)
class TableColumn:
    """A column of the database; its type is PostgreSQL's name without a length."""

    name: str
    type: str
    nullable: bool


def select(rules: Rules, table: str, columns: Sequence[TableColumn], choice: Choice) -> str:
    """Return the query for the rows of a table as they are copied, which can be extended by AND."""
    own = rules.tables.get(table, TableRules({}, None, None, None, {}))
    masking = _Masking(rules, own, choice)
    shown = ", ".join(f"{masking.column(one)} AS {_quoted(one.name)}" for one in columns)
    conditions = ["true"]
    if choice.groups and own.rows:
        conditions.append(f"({rules.expand(own.rows, choice.groups)})")
    if choice.genomes is Genomes.DROP and own.without_genomes:
        conditions.append(f"({own.without_genomes})")
    if choice.trees is Trees.DROP and own.without_trees:
        conditions.append(f"({own.without_trees})")
    return f"SELECT {shown} FROM aspen.{_quoted(table)} t WHERE {' AND '.join(conditions)}"


class _Masking:
    def __init__(self, rules: Rules, table: TableRules, choice: Choice):
        self._rules = rules
        self._table = table
        self._choice = choice
        self._aliases = 0

    def column(self, column: TableColumn) -> str:
        """Return the expression for a column."""
        value = f"t.{_quoted(column.name)}"
        rule = self._table.columns.get(column.name, "keep")
        if self._choice.groups and (among := self._table.refers.get(column.name)):
            ids = self._rules.expand(among, self._choice.groups)
            value = f"CASE WHEN {value} IN ({ids}) THEN {value} END"
        if rule == "genome":
            return self._genome(value, column)
        if not self._choice.scrub or rule == "keep":
            return value
        masked = self._json(value, rule, column) if column.type in _JSON else None
        masked = masked or self._plain(value, rule, column)
        if self._choice.keeps and column.name in {"name", "email", "auth0_user_id"}:
            masked = self._except_one(value, masked)
        return masked

    def _except_one(self, value: str, masked: str) -> str:
        """Return the expression, except for the user to keep; other tables have no such columns."""
        if "email" not in self._table.columns:
            return masked
        one = sql_literal(self._choice.keeps or "")
        return f"CASE WHEN lower(t.email) = {one} THEN {value} ELSE {masked} END"

    def _genome(self, value: str, column: TableColumn) -> str:
        if self._choice.genomes is Genomes.KEEP:
            return value
        return "NULL" if column.nullable else f"repeat('N', length({value}))"

    def _plain(self, value: str, rule: Rule, column: TableColumn) -> str:
        if rule == "null":
            return f"NULL::{column.type}"
        if rule == "shift":
            days = f"current_setting('{DAYS}')::int"
            step = days if column.type == "date" else f"make_interval(days => {days})"
            return f"{value} + {step}"
        if rule == "drop":
            empty = "'{}'" if column.type in _JSON else "''"
            return f"CASE WHEN {value} IS NOT NULL THEN {empty}::{column.type} END"
        return self._masked(value, str(rule))

    def _masked(self, value: str, rule: str) -> str:
        """Return the masked form of an expression for a text."""
        if rule.startswith(FAKE):
            return hashed(value, self._rules.fakes[rule.removeprefix(FAKE)])
        cases = [f"WHEN {value} = '' THEN ''"]
        if rule == "strain":
            cases.append(f"WHEN {self._is_public(value)} THEN {value}")
        for prefix in self._rules.prefixes:
            size = len(prefix)
            begins = f"lower(left({value}, {size})) = {sql_literal(prefix.lower())}"
            rest = hashed(f"substr({value}, {size + 1})", HASH)
            cases.append(f"WHEN {begins} THEN left({value}, {size}) || {rest}")
        return f"CASE {' '.join(cases)} ELSE {hashed(value, HASH)} END"

    def _is_public(self, value: str) -> str:
        """Return the condition that a name is that of a public strain, and no sample's.

        The row has a pathogen and a group. `aspencli.copies.names` does the same for trees.
        """
        prefixes = [sql_literal(prefix) for prefix in self._rules.prefixes]
        lengths = "".join(
            f" WHEN lower(left({value}, {len(prefix)})) = {sql_literal(prefix.lower())}"
            f" THEN substr({value}, {len(prefix) + 1})"
            for prefix in self._rules.prefixes
        )
        bare = f"(CASE{lengths} ELSE {value} END)"
        names = ", ".join([value, bare, *(f"{prefix} || {bare}" for prefix in prefixes)])
        return (
            "EXISTS (SELECT FROM aspen.public_repository_metadata pm"
            f" WHERE pm.pathogen_id = t.pathogen_id AND pm.strain IN ({value}, {bare}))"
            " AND NOT EXISTS (SELECT FROM aspen.samples ps"
            f" WHERE ps.submitting_group_id = t.group_id AND ps.public_identifier IN ({names}))"
        )

    # JSON

    def _json(self, value: str, rule: Rule, column: TableColumn) -> str | None:
        if rule in ("null", "drop"):
            return None
        parsed = f"{value}::jsonb" if column.type == "json" else value
        empty = "'{}'" if isinstance(rule, Mapping) else "'[]'"
        masked = self._member(parsed, rule)
        if not column.nullable:
            masked = f"coalesce({masked}, {empty}::jsonb)"
        elif isinstance(rule, str):
            masked = f"CASE WHEN {value} IS NOT NULL THEN {masked} END"
        # Most rows have nothing in them, and then no JSON is built. `json` has no comparison.
        same, kind = ("::text", "") if column.type == "json" else ("", "::jsonb")
        nothing = f"{value}{same} IN ('{{}}'{kind}, '[]'{kind})"
        quick = f"CASE WHEN {nothing} THEN {value}::jsonb ELSE {masked} END"
        return f"({quick})::{column.type}"

    def _member(self, value: str, rule: Rule) -> str:
        if isinstance(rule, Mapping):
            return self._object(value, rule)
        if rule == "keep":
            return value
        text = f"({value} #>> '{{}}')"
        if rule == "shift":
            return f"to_jsonb({_moved(text)})"
        single = f"to_jsonb({self._masked(text, rule)})"
        each = self._alias()
        item = f"to_jsonb({self._masked(f'({each}.v #>> {_ROOT})', rule)})"
        kind = f"jsonb_typeof({each}.v)"
        listed = (
            f"(SELECT coalesce(jsonb_agg(CASE WHEN {kind} IN ('string', 'number') THEN {item} END"
            f" ORDER BY {each}.n), '[]'::jsonb)"
            f" FROM jsonb_array_elements({value}) WITH ORDINALITY {each}(v, n))"
        )
        return (
            f"CASE jsonb_typeof({value}) WHEN 'array' THEN {listed}"
            f" WHEN 'string' THEN {single} WHEN 'number' THEN {single} END"
        )

    def _object(self, value: str, keys: Mapping[str, Rule]) -> str:
        """Return an object with the known keys only, built from the value once it is parsed."""
        each = self._alias()
        parts = ", ".join(
            f"{sql_literal(key)}, {self._member(f'({each}.o -> {sql_literal(key)})', rule)}"
            for key, rule in keys.items()
        )
        # OFFSET keeps the planner from parsing the value again for each key.
        return (
            f"(SELECT CASE jsonb_typeof({each}.o) WHEN 'object'"
            f" THEN jsonb_strip_nulls(jsonb_build_object({parts})) END"
            f" FROM (SELECT {value} AS o OFFSET 0) {each})"
        )

    def _alias(self) -> str:
        self._aliases += 1
        return f"j{self._aliases}"


_ROOT = "'{}'"


def _moved(text: str) -> str:
    """Return the day in a text, moved as other dates are; NULL if there is none."""
    first = f"(left({text}, 7) || '-01')::date"
    day = f"{first} + (substr({text}, 9, 2)::int - 1) + current_setting('{DAYS}')::int"
    return f"CASE WHEN {text} ~ {sql_literal(_DAY)} THEN ({day})::text END"


def is_day(text: str) -> bool:
    """Return True if a text begins with a day, as the server decides it."""
    return re.match(_DAY, text, re.ASCII) is not None


def hashed(value: str, form: str) -> str:
    """Return an expression for the keyed hash of a text, in a form such as ``Lab {12}``."""
    found = PLACE.search(form)
    if found is None:
        raise ValueError(f"a fake value needs a place for the hash: {form!r}")
    before, after = form[: found.start()], form[found.end() :]
    text = (
        f"left(encode(sha256(convert_to(current_setting('{KEY}') || {value}, 'UTF8')), 'hex'),"
        f" {found[1]})"
    )
    if before:
        text = f"{sql_literal(before)} || {text}"
    return f"({text} || {sql_literal(after)})" if after else f"({text})"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
