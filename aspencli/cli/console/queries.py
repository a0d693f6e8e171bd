"""Named queries: those in the config file's ``[queries]``, and those saved at the prompt.

Saved ones are in ``queries.toml`` beside the config file, so that a team can share either file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from aspencli import files
from aspencli.errors import BadInputError, ConflictError, NotFoundError

_NAME = re.compile(r"[A-Za-z_][\w-]*")
_SECTION = "queries"


class NamedQueries:
    """The queries by name.

    Args:
        shared: Those in the config file; they cannot be changed at the prompt.
        path: The file of the saved ones.
    """

    def __init__(self, shared: Mapping[str, str], path: Path | None = None):
        self._shared = shared
        self._path = path or files.config_dir() / "queries.toml"

    def all(self) -> dict[str, str]:
        """Return all queries by name.

        Raises:
            BadInputError: The file of the saved ones is damaged.
        """
        return {**self._saved(), **self._shared}

    def get(self, name: str) -> str:
        """Return a query.

        Raises:
            NotFoundError: There is none of this name.
        """
        found = self.all()
        if name not in found:
            known = f"Saved: {', '.join(sorted(found))}." if found else "Save one: %save NAME SQL"
            raise NotFoundError(f"There is no query named {name}.", hint=known)
        return found[name]

    def save(self, name: str, sql: str) -> bool:
        """Save a query; return True if it replaced another.

        Raises:
            BadInputError: The name is not valid.
            ConflictError: The config file has a query of this name.
        """
        if not _NAME.fullmatch(name):
            raise BadInputError(
                f"{name!r} is not a name for a query.",
                hint="Use letters, digits, hyphens, and underscores; begin with a letter.",
            )
        if name in self._shared:
            raise ConflictError(
                f"The config file already has a query named {name}.", hint="Choose another name."
            )
        saved = self._saved()
        replaced = saved.get(name, sql) != sql
        saved[name] = sql
        lines = [f"[{_SECTION}]", *(f"{key} = {_toml(saved[key])}" for key in sorted(saved))]
        files.write_private(self._path, "\n".join([*lines, ""]))
        return replaced

    def _saved(self) -> dict[str, str]:
        import tomllib

        try:
            found = tomllib.loads(self._path.read_text()).get(_SECTION, {})
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise BadInputError(
                f"Cannot read the saved queries in {self._path}: {error}",
                hint="Fix the file, or move it out of the way.",
            ) from error
        return {str(name): str(sql) for name, sql in found.items()}


def _toml(text: str) -> str:
    # TOML's basic strings are JSON's, except that they forbid DEL and know no surrogates.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
