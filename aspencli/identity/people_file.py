"""People read from a file with the columns email, name, group, and role."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from aspencli.changes.cells import Understood, accepted, named, spoiled, text
from aspencli.errors import BadInputError
from aspencli.identity.people import ROLES, WantedPerson
from aspencli.tabular.damage import missing_in
from aspencli.tabular.table import Fault, Table, find, note_further
from aspencli.text import email_flaw, quote

MOST = 2_000
"""The maximum number of people in a file; each takes a lock of the database's limited number."""


def _role(cell: str) -> Understood:
    if cell.lower() in ROLES:
        return cell.lower(), None
    return None, f"{quote(cell)} is not a role (choose {', '.join(ROLES)})"


COLUMNS: Mapping[str, Callable[[str], Understood]] = {
    "email": accepted(email_flaw),
    "name": text,
    "group": named,
    "role": _role,
}
"""The parser of each column."""


def read_people(
    source: Table,
    fault: Callable[[Fault], None],
    *,
    names: Sequence[str] = (),
    defaults: Mapping[str, str],
) -> list[WantedPerson]:
    """Return the people of a table; report the problems of its lines to ``fault``.

    Args:
        source: The table.
        fault: Called with each problem.
        names: The file's names for columns, such as ``Mail=email``.
        defaults: The group and the role where the file has none.

    Raises:
        BadInputError: The header lacks a required column, or there are too many people.
    """
    columns = find(source, list(COLUMNS), "people", names=names)
    lacking = [name for name in ("email", "group") if name not in {*columns, *defaults}]
    if lacking:
        option = ", or pass --group" if "group" in lacking else ""
        raise BadInputError(
            f"Line {source.header_line} of {source.name} has no column {' and no '.join(lacking)}",
            hint=f"Expected: {', '.join(COLUMNS)}. If the file has other names, use --map{option}.",
        )
    note_further(source, list(columns.values()), names)
    found: list[WantedPerson] = []
    lines: dict[tuple[str, str], int] = {}
    for line, cells in source.records(fault):
        record = source.fit(line, cells, fault)
        if record is None:
            continue
        values = {name: record[place] for name, place in columns.items()}
        person = _person(line, values, fault, defaults)
        if person is None:
            continue
        first = lines.setdefault((person.email, person.group), line)
        if first != line:
            fault(Fault(line, "email", f"duplicate of line {first}"))
        found.append(person)
        if len(found) > MOST:
            raise BadInputError(
                f"{source.name} has more than {MOST:,} people; nothing was written.",
                hint="Split the file.",
            )
    return found


def _person(
    line: int,
    values: Mapping[str, str],
    fault: Callable[[Fault], None],
    defaults: Mapping[str, str],
) -> WantedPerson | None:
    cells = {name: _cell(values[name], defaults.get(name)) for name in values}
    cells = {**dict(defaults), **cells}
    parsed: dict[str, str | None] = {}
    is_good = True
    for name, understand in COLUMNS.items():
        value, reason = _understood(name, cells.get(name, ""), understand)
        parsed[name] = value
        if reason is not None:
            fault(Fault(line, name, reason))
            is_good = False
    email, group, role = parsed["email"], parsed["group"], parsed["role"]
    if not is_good or email is None or group is None or role is None:
        return None
    return WantedPerson(email.lower(), parsed["name"], group, role, line)


def _cell(cell: str, default: str | None) -> str:
    if spoiled(cell):
        return cell
    return cell.strip() or default or ""


def _understood(name: str, cell: str, understand: Callable[[str], Understood]) -> Understood:
    reason = spoiled(cell)
    if reason is None and not cell:
        return None, None if name == "name" else "is blank"
    if reason is None and name != "group":
        reason = missing_in(cell)
    return (None, reason) if reason else understand(cell)
