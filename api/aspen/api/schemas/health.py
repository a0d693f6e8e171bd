"""The health of the service."""

from __future__ import annotations

from aspen.api.schemas.base import BaseResponse


class Health(BaseResponse):
    """The status of the service."""

    healthy: bool = False
