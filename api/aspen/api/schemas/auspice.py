"""Links through which Auspice loads a tree."""

from __future__ import annotations

from aspen.api.schemas.base import BaseRequest, BaseResponse, RowId


class AuspiceLinkRequest(BaseRequest):
    """The tree to show."""

    tree_id: RowId


class AuspiceLinkResponse(BaseResponse):
    """The link without ``https://``, as part of a nextstrain.org URL."""

    url: str
