"""The locations that samples come from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column, relationship

from aspen.database.models.base import Base

if TYPE_CHECKING:
    from aspen.database.models.accounts import Group
    from aspen.database.models.samples import Sample


class Location(Base):
    """A place, as specific as its deepest non-NULL column (from region down to location)."""

    __tablename__ = "locations"
    __table_args__ = (
        sa.UniqueConstraint("region", "country", "division", "location", name="uq_locations_cols"),
    )
    repr_fields: ClassVar[Mapping[str, str]] = {
        "region": "region",
        "country": "country",
        "division": "division",
        "location": "location",
    }

    id: Mapped[int] = mapped_column(primary_key=True)
    region: Mapped[str | None]
    country: Mapped[str | None]
    division: Mapped[str | None]
    location: Mapped[str | None]
    latitude: Mapped[float | None]
    """Degrees, north positive."""
    longitude: Mapped[float | None]
    """Degrees, east positive."""

    samples: Mapped[list[Sample]] = relationship(
        back_populates="collection_location", passive_deletes="all"
    )
    default_for_groups: Mapped[list[Group]] = relationship(
        back_populates="default_tree_location", passive_deletes="all"
    )
    """The groups whose trees cover this place by default."""
