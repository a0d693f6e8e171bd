"""Phylogenetic runs, and links to their trees."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field, StringConstraints, WithJsonSchema
from pydantic_core import PydanticCustomError

from aspen.api.schemas.base import (
    BaseRequest,
    BaseResponse,
    Date,
    Names,
    RowId,
    StrictText,
    UtcTime,
)
from aspen.api.schemas.reference import PathogenResponse
from aspen.database.models import TreeType

_LONGEST = 128
_OFFERED = (TreeType.OVERVIEW, TreeType.TARGETED, TreeType.NON_CONTEXTUALIZED)


def _read_type(value: str) -> str:
    if value.upper() not in _OFFERED:
        raise PydanticCustomError(
            "tree_type",
            "invalid tree type; must be one of {offered}",
            {"offered": ", ".join(_OFFERED)},
        )
    return value.upper()


RunName = Annotated[str, Field(min_length=1, max_length=_LONGEST)]


class GroupResponse(BaseResponse):
    """The group that the run belongs to."""

    id: int
    name: str
    location: str | None = None


class UserResponse(BaseResponse):
    """The user who started the run."""

    id: int
    name: str


class TreeResponse(BaseResponse):
    """The tree that the run built."""

    id: int
    name: str | None = None


class PhyloRunResponse(BaseResponse):
    """A run. PostgreSQL makes the JSON (`aspen.api.views.phylo_runs`); this documents it."""

    id: int
    start_datetime: UtcTime | None
    end_datetime: UtcTime | None = None
    workflow_status: str
    """``STARTED``, ``COMPLETED``, or ``FAILED``."""
    template_args: dict[str, Any]
    name: str | None = None
    group: GroupResponse
    template_file_path: str | None = None
    tree_type: str | None = None
    pathogen: PathogenResponse | None = None
    contextual_data_source: str
    user: UserResponse | None = None
    phylo_tree: TreeResponse | None = None
    """Null until there is one."""


class PhyloRunsListResponse(BaseResponse):
    """Runs, in the order of their ids."""

    phylo_runs: list[PhyloRunResponse]


class PhyloRunDeleteResponse(BaseResponse):
    """The run that was deleted."""

    id: int


class TemplateArgsRequest(BaseRequest):
    """Filters for the public samples that a tree may include in addition to the given samples."""

    filter_start_date: Date | None = None
    filter_end_date: Date | None = None
    filter_pango_lineages: (
        Names[Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z. *\/]+$")]] | None
    ) = None
    location_id: RowId | None = None
    """The location that the tree is about; the group's default if omitted."""


class PhyloRunRequest(BaseRequest):
    """A run to start."""

    name: RunName
    samples: Names[StrictText]
    """Public and private identifiers, strains of public repositories, and accession numbers."""
    tree_type: Annotated[
        str,
        AfterValidator(_read_type),
        WithJsonSchema({"type": "string", "enum": [str(name) for name in _OFFERED]}),
    ]
    """``OVERVIEW``, ``TARGETED``, or ``NON_CONTEXTUALIZED``; case does not matter."""
    template_args: TemplateArgsRequest | None = None


class PhyloRunUpdateRequest(BaseRequest):
    """The new name of a run."""

    name: RunName


class AuspiceLinkRequest(BaseRequest):
    """The tree to show."""

    tree_id: RowId


class AuspiceLinkResponse(BaseResponse):
    """The link without ``https://``, as part of a nextstrain.org URL."""

    url: str
