"""Pathogens."""

from __future__ import annotations

from aspen.api.schemas.base import BaseResponse


class PathogenResponse(BaseResponse):
    """A pathogen."""

    id: int
    slug: str
    name: str


class PathogensResponse(BaseResponse):
    """All pathogens."""

    pathogens: list[PathogenResponse]
