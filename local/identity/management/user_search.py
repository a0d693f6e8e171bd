"""User search, with a subset of Auth0's query language.

Terms like ``email:"a@example.org"``, ``name:Mor*``, or ``blocked:true``, joined by AND or by OR.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from local.identity.management.errors import bad_query

_COLUMNS = {
    "email": "email",
    "email.raw": "email",
    "name": "name",
    "user_id": "user_id",
    "blocked": "blocked",
    "email_verified": "email_verified",
}
_SORTED = {
    "email": "email",
    "name": "name",
    "user_id": "user_id",
    "created_at": "created_at",
    "updated_at": "updated_at",
    "last_login": "last_login",
    "logins_count": "logins_count",
}
_TRUTH = {"true": 1, "false": 0}
_TERM = re.compile(r'\s*([\w.]+):(?:"((?:[^"\\]|\\.)*)"|([^\s"()]+))\s*')
_JOINT = re.compile(r"(AND|OR)\b")


def conditions(query: str) -> tuple[str, Mapping[str, object]]:
    """Return a query as an SQL condition, and its parameters.

    Raises:
        ManagementError: The query is invalid.
    """
    terms: list[str] = []
    joints: set[str] = set()
    values: dict[str, object] = {}
    position = 0
    while position < len(query.rstrip()):
        if terms:
            joint = _JOINT.match(query, position)
            if not joint:
                raise _unclear(query)
            joints.add(joint[1])
            position = joint.end()
        term = _TERM.match(query, position)
        if not term:
            raise _unclear(query)
        position = term.end()
        name = f"value{len(values)}"
        condition, values[name] = _condition(query, term, name)
        terms.append(condition)
    if len(joints) > 1:
        raise _unclear(query)
    return f" {''.join(joints)} ".join(terms) or "true", values


def ordering(sort: str) -> str:
    """Return the requested order in SQL: ``email:1`` is ascending, ``email:-1`` descending.

    Raises:
        ManagementError: The order is invalid.
    """
    if not sort:
        return "created_at, user_id"
    name, _, direction = sort.partition(":")
    if name not in _SORTED or direction not in {"1", "-1"}:
        raise bad_query(f"Query validation error: 'Invalid sort: {sort}' on property sort.")
    return f"{_SORTED[name]} {'ASC' if direction == '1' else 'DESC'}, user_id"


def _condition(query: str, term: re.Match[str], name: str) -> tuple[str, object]:
    field, quoted, bare = term.groups()
    column = _COLUMNS.get(field)
    if column is None:
        raise _unclear(query)
    if column in {"blocked", "email_verified"}:
        if bare not in _TRUTH:
            raise _unclear(query)
        return f"{column} = :{name}", _TRUTH[bare]
    if quoted is not None:
        return f"{column} = :{name} COLLATE NOCASE", re.sub(r"\\(.)", r"\1", quoted)
    escaped = re.sub(r"([%_\\])", r"\\\1", bare).replace("*", "%")
    return f"{column} LIKE :{name} ESCAPE '\\'", escaped


def _unclear(query: str) -> Exception:
    return bad_query(
        f"Query validation error: 'Object didn't pass validation for format lucene: {query}'"
        " on property q."
    )
