"""The columns of user and group files: keys that find rows, and fields that change them."""

from __future__ import annotations

from collections.abc import Callable

from aspen.database.bulk import columns
from aspencli.changes.cells import ChangeKind, Field, Understood, accepted, named, truth
from aspencli.text import LONGEST_TEXT, email_flaw, identifier_flaw, name_flaw

_USER_NEEDS, _GROUP_NEEDS = "every user needs one", "every group needs one"


def _text(
    shortest: int = 1,
    longest: int = LONGEST_TEXT,
    flaw: Callable[[str, int], str | None] = name_flaw,
) -> Callable[[str], Understood]:
    """Return a parser for one line of text, with the limits of the API (POST /v2/groups/)."""

    def flaw_of(cell: str) -> str | None:
        if len(cell) < shortest:
            return f"is too short: {len(cell)} characters (minimum {shortest})"
        return flaw(cell, longest)

    return accepted(flaw_of)


def _account_flaw(cell: str) -> str | None:
    """Return what is wrong with an ID assigned by the identity provider, or None."""
    if any(map(str.isspace, cell)):
        return "contains white space"
    return identifier_flaw(cell, LONGEST_TEXT)


_account = accepted(_account_flaw)
_email = Field(columns.EMAIL, accepted(email_flaw), uncleared=_USER_NEEDS, names=True)
_auth0_user = Field(columns.AUTH0_USER, _account, uncleared=_USER_NEEDS, names=True)

USER_CHANGES = ChangeKind(
    table=columns.USERS,
    keys={"email": _email, "auth0_user_id": _auth0_user},
    fields={
        "email": _email,
        "new_email": _email,
        "name": Field(columns.USER_NAME, _text(), uncleared=_USER_NEEDS, names=True),
        "auth0_user_id": _auth0_user,
        "new_auth0_user_id": _auth0_user,
        "system_admin": Field(columns.SYSTEM_ADMIN, truth, uncleared="it is either true or false"),
        "gisaid_submitter_id": Field(columns.GISAID, _text(), names=True),
        "role": Field(columns.ROLE, named),
    },
    renaming={"new_email": "email", "new_auth0_user_id": "auth0_user_id"},
    creates=tuple(columns.USER_COLUMNS.values()),
    within=("group", Field(columns.IN_GROUP, named)),
    listing=("id", "name", "email", "auth0_user_id", "system_admin", "groups"),
)

_prefix = Field(columns.PREFIX, _text(2, 25, identifier_flaw), uncleared=_GROUP_NEEDS, names=True)
_name = Field(columns.GROUP_NAME, _text(3, 128), uncleared=_GROUP_NEEDS, names=True)

GROUP_CHANGES = ChangeKind(
    table=columns.GROUPS,
    keys={"prefix": _prefix, "name": _name},
    fields={
        "prefix": _prefix,
        "new_prefix": _prefix,
        "name": _name,
        "new_name": _name,
        "address": Field(columns.ADDRESS, _text()),
        "division": Field(columns.DIVISION, _text()),
        "location": Field(columns.PLACE, _text()),
        "default_tree_location": Field(columns.TREE_LOCATION, named, uncleared=_GROUP_NEEDS),
        "submitting_lab": Field(columns.SUBMITTING_LAB, _text(3, 128)),
        "auth0_org_id": Field(columns.AUTH0_ORG, _account, uncleared=_GROUP_NEEDS, names=True),
    },
    renaming={"new_prefix": "prefix", "new_name": "name"},
    creates=tuple(columns.GROUP_COLUMNS.values()),
)
