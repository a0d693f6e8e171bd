"""The context of a command that an assistant runs: it reads, and only from the targets allowed."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from aspencli.cli.context import AppContext
from aspencli.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Collection

    from aspen.database.engine import Database
    from aspencli.config import Target

ALLOW_HINT = "A person can allow it: aspencli mcp --allow {}"


class AssistantContext(AppContext):
    """A context that refuses to write, and to read from a target that is not allowed.

    It is the second of two guards: no tool has a command or an option that writes.

    Args:
        allowed: The names of the production targets that a person has allowed.
    """

    def __init__(self, allowed: Collection[str]) -> None:
        super().__init__()
        self._allowed = frozenset(allowed)

    @cached_property
    def target(self) -> Target:
        """Return the selected target.

        Raises:
            RefusedError: It is a production target, and no person has allowed it.
        """
        return require_allowed(self.config.safest_target, self._allowed)

    def recognize(self, *, writable: bool = False, reading: Database | None = None) -> None:
        """Check whether the target's database is a production database that is not allowed.

        Raises:
            RefusedError: It is.
        """
        if writable:
            _refuse("write")
        super().recognize(writable=False, reading=reading)
        require_allowed(self.target, self._allowed)

    def database(self, **options: Any) -> Database:
        """Return the target's database for reading.

        Raises:
            RefusedError: The command would write, or connect as a role with more rights.
        """
        if options.get("writable") or options.get("admin"):
            _refuse("write to the database")
        return super().database(**options)

    def authorize(self, what: str, **options: Any) -> None:  # noqa: ARG002 - the signature is that of the base class
        """Refuse a write.

        Raises:
            RefusedError: Always.
        """
        _refuse(what)

    def beside(self, label: str) -> AppContext:
        """Refuse another target.

        Raises:
            RefusedError: Always.
        """
        _refuse(f"use the target {label} too")


def require_allowed(target: Target, allowed: Collection[str]) -> Target:
    """Return the target if an assistant may read from it.

    Raises:
        RefusedError: It is a production target, and no person has allowed it.
    """
    if target.is_production and target.confirmed_by not in allowed:
        raise RefusedError(
            f"Assistants may not read from {target.title}, which is a production target.",
            hint=ALLOW_HINT.format(target.confirmed_by),
        )
    return target


def _refuse(what: str) -> NoReturn:
    raise RefusedError(
        f"An assistant cannot {what}; nothing was written.",
        hint="A person can run the command in a terminal.",
    )
