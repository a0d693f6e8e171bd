"""Whether the service runs."""

from __future__ import annotations

from api.schemas.base import BaseResponse


class Health(BaseResponse):
    """The service answers."""

    healthy: bool = False
