"""The sample fields that a file can change, and the keys that it can find samples by."""

from __future__ import annotations

from aspen.database.bulk.columns import (
    COLLECTION_DATE,
    ID,
    LOCATION,
    PRIVACY,
    PRIVATE,
    PUBLIC,
    SAMPLES,
    SEQUENCING_DATE,
)
from aspencli.changes.cells import ChangeKind, Field, day, identifier, named, number, sought, truth

_NEEDED = "every sample needs one"
_private = Field(PRIVATE, identifier, uncleared=_NEEDED, names=True)
_public = Field(PUBLIC, identifier, uncleared=_NEEDED, names=True)

SAMPLE_CHANGES = ChangeKind(
    table=SAMPLES,
    keys={
        "private_identifier": Field(PRIVATE, sought),
        "id": Field(ID, number),
        "public_identifier": Field(PUBLIC, sought),
    },
    fields={
        "private_identifier": _private,
        "new_private_identifier": _private,
        "public_identifier": _public,
        "new_public_identifier": _public,
        "collection_date": Field(COLLECTION_DATE, day, uncleared=_NEEDED),
        "sequencing_date": Field(SEQUENCING_DATE, day),
        "private": Field(PRIVACY, truth, uncleared="it is either true or false"),
        # The column is nullable, but one null keeps the service from listing the group's samples.
        "location": Field(LOCATION, named, uncleared="the service cannot list samples without one"),
    },
    renaming={
        "new_private_identifier": "private_identifier",
        "new_public_identifier": "public_identifier",
    },
)
