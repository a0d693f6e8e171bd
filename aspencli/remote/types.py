"""The types of the API's requests and responses."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict


class GroupRoles(TypedDict):
    """A group of a user, with the user's roles in it."""

    id: int
    name: str
    roles: list[str]


class Me(TypedDict):
    """The signed-in user. The API returns neither the e-mail address nor who is system admin."""

    id: int
    name: str
    agreed_to_tos: bool
    acknowledged_policy_version: str | None
    split_id: str
    analytics_id: str
    gisaid_submitter_id: str | None
    groups: list[GroupRoles]


class MeChange(TypedDict, total=False):
    """Changes to one's own account; omitted fields stay unchanged."""

    agreed_to_tos: bool
    acknowledged_policy_version: str
    name: str
    gisaid_submitter_id: str


class NewUser(TypedDict):
    """A user to create."""

    name: str
    email: str
    group_id: int
    auth0_user_id: str
    system_admin: NotRequired[bool]


class Location(TypedDict):
    """A place; levels that are not specified are None."""

    id: int
    region: str
    country: str | None
    division: str | None
    location: str | None


class LocationQuery(TypedDict, total=False):
    """Parts of a place's name."""

    region: str
    country: str
    division: str
    location: str


class Group(TypedDict):
    """A group."""

    id: int
    name: str
    address: str | None
    prefix: str
    default_tree_location: Location
    submitting_lab: str | None


class NewGroup(TypedDict):
    """A group to create."""

    name: str
    prefix: str
    default_tree_location_id: int
    submitting_lab: NotRequired[str]
    address: NotRequired[str]
    division: NotRequired[str]
    location: NotRequired[str]


class Member(TypedDict):
    """A member of a group, with one role."""

    id: int
    name: str
    agreed_to_tos: bool
    acknowledged_policy_version: str | None
    email: str
    role: str


class Invitation(TypedDict):
    """An invitation that was sent; it may have expired."""

    id: str
    created_at: str
    expires_at: str
    inviter: dict[str, str]
    invitee: dict[str, str]


class Invited(TypedDict):
    """The result of inviting one address; the live service gives no reason for a failure."""

    email: str
    success: bool
    error: NotRequired[str | None]


class Pathogen(TypedDict):
    """A pathogen."""

    id: int
    slug: str
    name: str


class Sample(TypedDict):
    """A sample as the API returns it.

    ``private_identifier`` is None if the sample belongs to another group. ``gisaid`` is always
    None in the response to a change.
    """

    id: int
    collection_date: str
    collection_location: Location
    gisaid: dict[str, str | None] | None
    pathogen: Pathogen | None
    private: bool
    private_identifier: str | None
    public_identifier: str | None
    sequencing_date: str | None
    submitting_group: dict[str, Any]
    uploaded_by: dict[str, Any]
    upload_date: str | None
    lineages: list[dict[str, Any]]
    qc_metrics: list[dict[str, Any]]


class SampleRecord(TypedDict):
    """A complete sample record for an update.

    The service treats omitted fields and None as changes: it clears the sequencing date, generates
    a new public identifier, and rejects a missing collection date. So no field may be omitted.
    ``collection_location`` is an ID; 0 leaves the location unchanged.
    """

    id: int
    collection_location: int
    private: bool
    private_identifier: str
    public_identifier: str | None
    collection_date: str
    sequencing_date: str | None


class NewSampleFields(TypedDict):
    """The fields of a sample to create, without its genome."""

    private_identifier: str
    collection_date: str
    location_id: int
    private: bool
    public_identifier: NotRequired[str]
    organism: NotRequired[str]
    authors: NotRequired[str]
    host: NotRequired[str]
    sample_collected_by: NotRequired[str]
    sample_collector_contact_email: NotRequired[str]
    sample_collector_contact_address: NotRequired[str]
    purpose_of_sampling: NotRequired[str]
    specimen_processing: NotRequired[str]


class NewGenome(TypedDict):
    """The genome of a sample to create: 1,000 bases or more, no header, no line breaks."""

    sequence: str
    sequencing_date: NotRequired[str]
    sequencing_depth: NotRequired[float]


class NewSample(TypedDict):
    """A sample to create."""

    sample: NewSampleFields
    pathogen_genome: NewGenome


class PhyloRun(TypedDict):
    """A phylogenetic tree run; its status is STARTED, COMPLETED, or FAILED."""

    id: int
    start_datetime: str
    end_datetime: str | None
    workflow_status: str
    template_args: dict[str, Any]
    name: str | None
    group: dict[str, Any]
    template_file_path: str | None
    tree_type: str | None
    pathogen: Pathogen | None
    contextual_data_source: str
    user: dict[str, Any] | None
    phylo_tree: dict[str, Any] | None


class NewPhyloRun(TypedDict):
    """A run to start; ``tree_type`` is OVERVIEW, TARGETED, or NON_CONTEXTUALIZED."""

    name: str
    tree_type: str
    samples: list[str]
    template_args: NotRequired[dict[str, Any]]


class UsherTree(TypedDict):
    """A version of the tree that UShER can place samples on."""

    id: int
    description: str
    value: str
    priority: int
