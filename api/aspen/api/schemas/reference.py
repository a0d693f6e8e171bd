"""Reference data: pathogens, lineages, locations, and the trees that UShER can place samples in."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import BeforeValidator

from aspen.api.schemas.base import BaseRequest, BaseResponse

_LAST = 2**31 - 1


class PathogenResponse(BaseResponse):
    """A pathogen."""

    id: int
    slug: str
    name: str


class PathogensResponse(BaseResponse):
    """All pathogens."""

    pathogens: list[PathogenResponse]


class PathogenLineagesResponse(BaseResponse):
    """Names of lineages, sorted."""

    lineages: list[str]


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


class UsherTreeVersion(BaseResponse):
    """A tree; the lowest priority is offered first."""

    id: int
    description: str
    value: str
    priority: Annotated[int, BeforeValidator(lambda value: _LAST if value is None else value)]


class UsherTreeVersionsResponse(BaseResponse):
    """The trees of a pathogen."""

    usher_options: list[UsherTreeVersion]
