"""Changes of single settings in the config file, which keep its comments and its order.

A line of the file is replaced, added, or removed, and the result is compared with the settings that
are wanted. So a file in a form that this module does not understand is refused, never damaged.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

from aspencli import files
from aspencli.config import KEYS, SECTIONS, STACK, STACK_NAME, TARGET_KEYS, WAYS, Config
from aspencli.errors import AspenError, BadInputError, NotFoundError, RefusedError
from aspencli.text import json_text

Place = tuple[str, ...]
"""The section of a setting, the tables inside it, and its key."""
# JSON's texts are TOML's basic strings.
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_API_ADDRESSES = frozenset({"api", "api_url", "auth_url", "aws_endpoint_url"})
_TABLE_DEPTH = 3  # section, name, key
_NAMES = "A name is a default such as output, or targets.NAME.KEY, such as targets.staging.way."


def place_of(name: str, targets: Container[str] = ()) -> Place:
    """Return where a setting is in the file: ``output`` is in ``[defaults]``.

    The names of the targets are needed for those that contain a dot.

    Raises:
        BadInputError: There is no setting with this name.
    """
    kept = [key.name for key in KEYS if key.is_kept]
    section, _, rest = name.partition(".")
    if not rest and section.replace("-", "_") in kept:
        return "defaults", section.replace("-", "_")
    if section == "defaults" and rest in kept:
        return "defaults", rest
    if section == "queries" and rest:
        return "queries", rest
    if section == "maps" and rest:
        table, _, header = rest.partition(".")
        return ("maps", table, header) if header else ("maps", table)
    if section == "targets" and rest:
        # A target's name may contain dots, a key does not.
        target, _, key = rest.rpartition(".")
        if target and key in {"safety", *TARGET_KEYS}:
            return "targets", target, key
        if not target or rest in targets:
            return "targets", rest
        raise BadInputError(
            f"Unknown setting: {name}{_meant(key, ('safety', *TARGET_KEYS))}",
            hint=f"Keys of a target: safety, {', '.join(TARGET_KEYS)}.",
        )
    if section not in SECTIONS:
        raise BadInputError(
            f"Unknown setting: {name}{_meant(name, kept)}",
            hint=f"{_NAMES} Defaults: {', '.join(kept)}.",
        )
    raise BadInputError(f"Unknown setting: {name}", hint=_NAMES)


def _meant(name: str, known: Sequence[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, known, n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def check_value(place: Place, value: str) -> None:
    """Check a value that does not depend on the rest of the file.

    Raises:
        BadInputError: It is not valid.
        RefusedError: It contains a password.
    """
    section, *_, key = place
    name = ".".join(place[1:] if section == "defaults" else place)
    if not value or not value.isprintable():
        what = "is empty" if not value else "contains control characters"
        raise BadInputError(f"The value of {name} {what}.", hint="Use config unset to remove it.")
    if section not in {"defaults", "targets"}:
        return
    choices = next((one.choices for one in KEYS if section == "defaults" and one.name == key), ())
    if key == "way" and section == "targets":
        choices = WAYS
    if choices and value not in choices:
        raise BadInputError(f"Invalid value for {name}: {value!r} (choose {', '.join(choices)})")
    if key == "stack" and not STACK_NAME.fullmatch(value):
        raise BadInputError(
            f"Invalid stack name: {value!r}",
            hint="A stack name has 1 to 63 letters, digits, and hyphens; it starts with a letter.",
        )
    if key in _API_ADDRESSES or key == "database_url":
        _check_address(name, key, value)


def _check_address(name: str, key: str, value: str) -> None:
    from urllib.parse import parse_qs, urlsplit

    try:
        parts = urlsplit(value)
        has_password = parts.password is not None or "password" in parse_qs(parts.query)
    except ValueError:
        has_password = False
    if has_password:
        raise RefusedError(
            f"The value of {name} contains a password; nothing was written.",
            hint="Leave the password out. PostgreSQL's client library reads it from ~/.pgpass, and "
            "the sign-in to an API is stored by: aspencli auth login",
        )
    plain = value.replace(STACK, "stack")
    if key == "database_url":
        from aspencli.admin.psql import read_address

        read_address(plain)
    else:
        from aspencli.addresses import origin_of

        origin_of(plain, name)


class ConfigFile:
    """The config file, to be changed.

    Args:
        config: The settings that are read from it.
    """

    def __init__(self, config: Config):
        self._config = config
        self.path = config.path

    def set(self, place: Place, value: str) -> bool:
        """Set a value; return False if it is set already.

        Raises:
            AspenError: The value is not valid in this file, or the file cannot be changed.
        """
        if len(place) < _TABLE_DEPTH and place[0] in {"targets", "maps"}:
            raise BadInputError(f"{'.'.join(place)} is not one setting.", hint=_NAMES)
        check_value(place, value)
        with self._locked() as before:
            wanted = deepcopy(before)
            table: Any = wanted
            for part in place[:-1]:
                table = table.setdefault(part, {})
            if table.get(place[-1]) == value:
                return False
            table[place[-1]] = value
            self._check(wanted, place)
            self._write(_with_value(self._text(), place, value), wanted, place)
        return True

    def unset(self, place: Place) -> None:
        """Remove a value, or a whole target or map.

        Raises:
            NotFoundError: It is not in the file.
            AspenError: The file cannot be changed.
        """
        with self._locked() as before:
            wanted = deepcopy(before)
            table: Any = wanted
            for part in place[:-1]:
                table = table.get(part, {})
            if place[-1] not in table:
                raise NotFoundError(
                    f"{'.'.join(place)} is not set in {self.path}.",
                    hint="Settings and where they come from: aspencli config show",
                )
            is_table = isinstance(table.pop(place[-1]), dict)
            text = self._text()
            changed = _without_table(text, place) if is_table else _without_value(text, place)
            self._check(wanted, place)
            self._write(changed, wanted, place)

    @contextmanager
    def _locked(self) -> Iterator[dict[str, Any]]:
        """Yield the settings in the file, which no other process changes meanwhile."""
        real = self._real()
        try:
            files.make_folder(real.parent)
            lock = files.open_own(real.with_name(f".{real.name}.lock"))
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._config.__dict__.pop("document", None)  # another process may have changed it
            yield self._config.document
        finally:
            os.close(lock)

    def _real(self) -> Path:
        """Return the file that a link of the operator's own leads to, as dotfiles have them."""
        with suppress(OSError):
            if self.path.is_symlink() and self.path.lstat().st_uid == os.geteuid():
                return self.path.resolve(strict=True)
        return self.path

    def _text(self) -> str:
        try:
            # Not read_text, which would change the ends of lines.
            return self.path.read_bytes().decode()
        except FileNotFoundError:
            return ""

    def _check(self, document: dict[str, Any], place: Place) -> None:
        """Check settings as they are checked when they are read."""
        found = self._config.with_document(document)
        targets = found.targets
        if place[0] != "targets" and place != ("defaults", "env"):
            return
        name = document.get("defaults", {}).get("env", "local")
        if name not in targets:
            is_removed = place == ("targets", name)
            raise BadInputError(
                f"{name} is the default target." if is_removed else f"Unknown target: {name!r}",
                hint="Change that first: aspencli config set env NAME"
                if is_removed
                else f"Targets: {', '.join(targets)}.",
            )
        if targets[name].is_production:
            raise BadInputError(
                f"Production cannot be the default target, and {name} would be production.",
                hint=f"Pass --env {name} when you need it.",
            )

    def _write(self, text: str | None, wanted: Mapping[str, Any], place: Place) -> None:
        accepted = (wanted, _without_empty(wanted, place))
        if text is None or _parsed(text) not in accepted:
            raise AspenError(
                f"{'.'.join(place)} cannot be changed in {self.path} without losing its form; "
                "nothing was written.",
                hint="Edit the file by hand.",
            )
        real = self._real()
        try:
            mode = stat.S_IMODE(real.stat().st_mode) if real.exists() else files.FILE_MODE
            with files.replacing(real) as file:
                file.write(text.encode())
                os.fchmod(file.fileno(), mode)
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> AspenError:
        return AspenError(
            f"Cannot write {self.path}: {files.write_failure(self.path, error)}",
            hint="Fix the permissions of the file and its folder, or set ASPEN_CONFIG.",
        )


def _parsed(text: str) -> Any:
    import tomllib

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None


def _without_empty(document: Mapping[str, Any], place: Place) -> Any:
    """Return the settings without the section of a removed table, if nothing is left in it."""
    section = document.get(place[0])
    if section == {} and place[0] in {"targets", "maps"}:
        return {name: table for name, table in document.items() if name != place[0]}
    return document


# Lines


def _lines(text: str) -> list[str]:
    """Return the lines of a file; a value of several lines is one of them."""
    lines: list[str] = []
    part = ""
    for line in text.splitlines(keepends=True):
        part += line
        if _parsed(part) is not None:
            lines.append(part)
            part = ""
    return [*lines, part] if part else lines


def _header(line: str) -> Place | None:
    """Return the table that a line begins, or None."""
    if not line.lstrip().startswith("["):
        return None
    found = _parsed(line)
    path: list[str] = []
    while isinstance(found, dict) and found:
        ((name, found),) = found.items()
        path.append(name)
    return tuple(path) if path and found == {} else None


def _section(lines: Sequence[str], table: Place) -> tuple[int, int] | None:
    """Return the first line after a table's header, and the line where the table ends."""
    start = next((number for number, line in enumerate(lines) if _header(line) == table), None)
    if start is None:
        return None
    rest = range(start + 1, len(lines))
    end = next((number for number in rest if _header(lines[number]) is not None), len(lines))
    return start + 1, end


def _line_of(lines: Sequence[str], place: Place) -> int | None:
    """Return the number of the line with a value, or None."""
    section = _section(lines, place[:-1])
    if section is None:
        return None
    for number in range(*section):
        found = _parsed(lines[number])
        if found and set(found) == {place[-1]}:
            return number
    return None


def _with_value(text: str, place: Place, value: str) -> str:
    lines = _lines(text)
    end = "\r\n" if text.count("\r\n") > text.count("\n") / 2 else "\n"
    assignment = f"{_key(place[-1])} = {json_text(value)}"
    number = _line_of(lines, place)
    if number is not None:
        line = lines[number]
        indent = line[: len(line) - len(line.lstrip())]
        ending = line[len(line.rstrip("\r\n")) :] or end
        lines[number] = f"{indent}{assignment}{_comment(line)}{ending}"
        return "".join(lines)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += end
    section = _section(lines, place[:-1])
    if section is None:
        gap = [end] if lines and lines[-1].strip() else []
        header = ".".join(map(_key, place[:-1]))
        return "".join([*lines, *gap, f"[{header}]{end}", assignment + end])
    first, last = section
    # After the last value of the table: comments below it may belong to the next one.
    used = [
        n for n in range(first, last) if lines[n].strip() and not lines[n].lstrip().startswith("#")
    ]
    at = used[-1] + 1 if used else first
    return "".join([*lines[:at], assignment + end, *lines[at:]])


def _comment(line: str) -> str:
    """Return the comment at the end of a line with a value, with the space before it."""
    bare = line.rstrip("\r\n")
    for at, char in enumerate(bare):
        if char == "#" and _parsed(bare[:at]):
            return bare[len(bare[:at].rstrip()) :]
    return ""


def _without_value(text: str, place: Place) -> str | None:
    lines = _lines(text)
    number = _line_of(lines, place)
    return None if number is None else "".join([*lines[:number], *lines[number + 1 :]])


def _without_table(text: str, table: Place) -> str | None:
    lines = _lines(text)
    section = _section(lines, table)
    if section is None:
        return None
    first, end = section
    while end > first and lines[end - 1].lstrip().startswith("#"):
        end -= 1  # a comment before the next table belongs to that
    return "".join([*lines[: first - 1], *lines[end:]])


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else json_text(name)
