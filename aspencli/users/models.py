"""A user to create, with validated fields; uses only the standard library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from aspencli.stored_text import clean_account, clean_email, clean_name, clean_text


@dataclass(frozen=True)
class NewUser:
    """A user to create; see `NewUser.checked`.

    Attributes:
        group: The ID, name, or prefix of the group to join.
        role: The name of the role in that group.
    """

    name: str
    email: str
    auth0_user_id: str
    group: str
    role: str
    system_admin: bool = False

    @classmethod
    def checked(
        cls, *, name: str, email: str, auth0_user_id: str, group: str, role: str, system_admin: bool
    ) -> Self:
        """Validate every field and return the user.

        Raises:
            BadInputError: A field is blank, malformed, or contains invisible characters.
        """
        return cls(
            clean_name(name, "the name"),
            clean_email(email),
            clean_account(auth0_user_id),
            clean_text(group, "the group"),
            clean_text(role, "the role"),
            system_admin,
        )
