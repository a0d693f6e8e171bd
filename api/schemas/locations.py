"""Locations."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import BeforeValidator

from api.schemas.base import BaseRequest, BaseResponse


class LocationDepth(StrEnum):
    """How exact a location may be."""

    LOCATION = "location"
    DIVISION = "division"
    COUNTRY = "country"
    REGION = "region"


class LocationResponse(BaseResponse):
    """A place, as exact as its deepest name that is not null."""

    id: int
    # The database allows none; clients do not.
    region: Annotated[str, BeforeValidator(lambda name: name or "")]
    country: str | None = None
    division: str | None = None
    location: str | None = None


class LocationListResponse(BaseResponse):
    """Locations."""

    locations: list[LocationResponse]


class LocationSearchRequest(BaseRequest):
    """Names that may be misspelt."""

    region: str | None = None
    country: str | None = None
    division: str | None = None
    location: str | None = None
