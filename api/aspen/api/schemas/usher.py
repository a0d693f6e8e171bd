"""The trees that UShER can place samples in."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator

from aspen.api.schemas.base import BaseResponse

_LAST = 2**31 - 1


class UsherTreeVersion(BaseResponse):
    """A tree; the lowest priority is offered first."""

    id: int
    description: str
    value: str
    priority: Annotated[int, BeforeValidator(lambda value: _LAST if value is None else value)]


class UsherTreeVersionsResponse(BaseResponse):
    """The trees of a pathogen."""

    usher_options: list[UsherTreeVersion]
