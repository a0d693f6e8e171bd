"""What bulk runs may change of samples, and how samples are found."""

from __future__ import annotations

from db.bulk.spec import Column, Spec, Table

SAMPLES = Table(
    name="aspen.samples",
    noun="sample",
    lacks="the group has no sample",
    scope="submitting_group_id",
    label="private_identifier",
)
PRIVATE = Column("private_identifier", "private_identifier", unique=True)
PUBLIC = Column("public_identifier", "public_identifier", unique=True, verb="is named")

COLUMNS = {column.name: column for column in (PRIVATE, PUBLIC)}
"""Whatever a bulk run may change of samples, by its name."""

RENAME = Spec(SAMPLES, key=PRIVATE, columns=(PUBLIC,))
"""New public identifiers for samples that are known by their private ones."""
