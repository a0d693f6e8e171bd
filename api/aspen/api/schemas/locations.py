"""Locations."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import BeforeValidator

from aspen.api.schemas.base import BaseRequest, BaseResponse


class LocationDepth(StrEnum):
    """The precision of a location."""

    LOCATION = "location"
    DIVISION = "division"
    COUNTRY = "country"
    REGION = "region"


class LocationResponse(BaseResponse):
    """A location, as precise as its deepest level that is not null."""

    id: int
    # The database allows null, but clients do not.
    region: Annotated[str, BeforeValidator(lambda name: name or "")]
    country: str | None = None
    division: str | None = None
    location: str | None = None


class LocationListResponse(BaseResponse):
    """Locations."""

    locations: list[LocationResponse]


class LocationSearchRequest(BaseRequest):
    """Place names, which may be misspelled."""

    region: str | None = None
    country: str | None = None
    division: str | None = None
    location: str | None = None
