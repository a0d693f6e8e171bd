"""A user to create, with validated fields, and how the API creates it.

Uses only the standard library.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from aspencli.errors import BadInputError, CredentialsError, NotFoundError
from aspencli.reference.remote import Org, creating, find_org
from aspencli.text import clean_account, clean_email, clean_name, clean_text

if TYPE_CHECKING:
    from aspencli.remote.api import Api

API_ROLE = "member"
"""The role that the API gives every new user."""
_SENT = ("name", "email", "auth0_user_id", "system_admin")


@dataclass(frozen=True)
class NewUser:
    """A user to create; see `NewUser.checked`."""

    name: str
    email: str
    auth0_user_id: str
    group: str  # the ID, name, or prefix of the group to join
    role: str  # the name of the role in that group
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


def plan_asked(api: Api, wanted: NewUser) -> Org:
    """Return the group that the user would join.

    Raises:
        BadInputError: The role is not member, the only one that the API can assign.
        NotFoundError: The caller has no role in a group of that name. (IDs are not checked.)
    """
    if wanted.role.lower() != API_ROLE:
        raise BadInputError(
            f"The API can create users only with the role {API_ROLE}, not {wanted.role}.",
            hint="Use the database: --via db.",
        )
    org = find_org(api, wanted.group)
    if org.name is not None:
        return org
    try:
        return Org(org.id, api.groups.get(org.id)["name"])
    except (NotFoundError, CredentialsError):  # A system administrator may not be a member.
        return org


def create_asked(api: Api, wanted: NewUser, org: Org) -> dict[str, Any]:
    """Create the user in the group; return the fields of `aspencli.users.database.UserRow`.

    Raises:
        ConflictError: The e-mail address or Auth0 ID is taken, even if by an identical user.
        UncertainError: No response arrived.
    """
    fields = {key: getattr(wanted, key) for key in _SENT}
    live = "The published version of the service cannot create users. Use the database: --via db."
    with creating("user", live):
        made = api.users.create({**fields, "group_id": org.id})  # type: ignore[typeddict-item] # the keys are those of the type
    return {"id": made["id"], **fields, "groups": list(made["groups"])}
