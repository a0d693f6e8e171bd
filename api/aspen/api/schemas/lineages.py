"""Lineages."""

from __future__ import annotations

from aspen.api.schemas.base import BaseResponse


class PathogenLineagesResponse(BaseResponse):
    """Names of lineages, sorted."""

    lineages: list[str]
