"""Links under which Auspice finds a tree."""

from __future__ import annotations

from api.schemas.base import BaseRequest, BaseResponse, RowId


class AuspiceLinkRequest(BaseRequest):
    """Which tree is to be shown."""

    tree_id: RowId


class AuspiceLinkResponse(BaseResponse):
    """Where it is, without ``https://``: part of an address at nextstrain.org."""

    url: str
