"""A user to be made, checked; the standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from aspencli.services.checks import clean_account, clean_email, clean_name, clean_text


@dataclass(frozen=True)
class NewUser:
    """A user as the operator wants it; see `NewUser.checked`.

    Attributes:
        group: Id, name or prefix of the group to join.
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
        """The user, after a look at every text.

        Raises:
            BadInputError: One is blank, malformed or holds what cannot be seen.
        """
        return cls(
            clean_name(name, "the name"),
            clean_email(email),
            clean_account(auth0_user_id),
            clean_text(group, "the group"),
            clean_text(role, "the role"),
            system_admin,
        )
