"""The API, resource by resource: its endpoints, and the types of their requests and responses.

`ApiCalls.ask` describes the errors of the methods.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NotRequired, TypeAlias, TypedDict, TypeVar, cast
from urllib.parse import quote

from aspencli.errors import BadInputError

if TYPE_CHECKING:
    from aspencli.remote.downloads import Downloaded, Landing, Progress
    from aspencli.remote.transport import ApiCalls

T = TypeVar("T")
Settle: TypeAlias = Callable[[], T | None] | None
"""Checks whether a change was made if its response was lost: see `ApiCalls.ask`."""
ME = "/v2/users/me"
_NOT_VALID = 422


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


def whole(_shape: type[T]) -> Callable[[Any], T]:
    """Return a function that takes a whole object; it checks only that it is an object."""

    def pick(body: Any) -> T:
        if not isinstance(body, dict):
            raise TypeError("expected an object")
        return cast("T", body)

    return pick


def under(key: str, kind: type[T]) -> Callable[[Any], T]:
    """Return a function that takes the value under a key, which must be of that type."""

    def pick(body: Any) -> T:
        found = body[key]
        if not isinstance(found, kind):
            raise TypeError(f"expected {key} to be a {kind.__name__}")
        return found

    return pick


def scoped(org: int, slug: str, rest: str) -> str:
    """Return the path of a resource that belongs to a group and a pathogen."""
    return f"/v2/orgs/{org}/pathogens/{quote(slug, safe='')}/{rest}"


class _Resource:
    def __init__(self, calls: ApiCalls):
        self._calls = calls

    def _check_create(self, path: str) -> None:
        """Check a permission by requesting to create something from an empty object.

        The API does not say who is a system administrator, but it checks the permission first. An
        empty object lacks all required fields, so users who may create get a 422, and others a 403.

        Raises:
            CredentialsError: The user does not have the permission.
        """
        try:
            self._calls.ask("POST", path, lambda _found: None, body={}, safe=True)
        except BadInputError as error:
            if error.answer is None or error.answer.status != _NOT_VALID:
                raise


class Samples(_Resource):
    """The ``/v2/orgs/.../samples`` resource."""

    def read(self, org: int, slug: str, take: Callable[[Iterator[Sample]], T]) -> T:
        """Return what ``take`` makes of all visible samples, which arrive in order of ID.

        It should keep only what is needed: 100,000 samples take half a gigabyte. If the response
        breaks off, it is called again, from the first sample.
        """
        return self._calls.list(scoped(org, slug, "samples/"), "samples", take)

    def replace(
        self,
        org: int,
        slug: str,
        records: Sequence[SampleRecord],
        settle: Settle[list[Sample]] = None,
    ) -> list[Sample]:
        """Replace samples with complete records: all of them, or none.

        Repeating this is harmless only if no one else changed the samples in between, so it is not
        retried without ``settle``.
        """
        return self._change("PUT", org, slug, "samples", {"samples": list(records)}, settle)

    def create(
        self,
        org: int,
        slug: str,
        samples: Sequence[NewSample],
        settle: Settle[list[Sample]] = None,
    ) -> list[Sample]:
        """Create samples with their genomes: all of them, or none."""
        return self._change("POST", org, slug, "samples", list(samples), settle)

    def delete(
        self, org: int, slug: str, ids: Sequence[int], settle: Settle[list[int]] = None
    ) -> list[int]:
        """Delete samples: all of them, or none. An ID that is given twice is not found."""
        return self._change("DELETE", org, slug, "ids", {"ids": list(ids)}, settle)

    def missing(self, org: int, slug: str, ids: Sequence[str]) -> list[str]:
        """Return those of the identifiers, of any kind, that match no visible sample."""
        path, pick = scoped(org, slug, "samples/validate_ids/"), under("missing_sample_ids", list)
        body = {"sample_ids": list(ids)}
        return self._calls.ask("POST", path, pick, body=body, safe=True, heavy=True)

    def sequences(
        self,
        org: int,
        slug: str,
        ids: Sequence[str],
        landing: Landing,
        progress: Progress,
        *,
        repository: str | None = None,
    ) -> Downloaded:
        """Download genomes (FASTA); identifiers that the user may not see are silently omitted."""
        path = scoped(org, slug, "sequences/")
        return self._fetch(path, ids, landing, progress, repository)

    def submission_template(
        self,
        org: int,
        slug: str,
        ids: Sequence[str],
        repository: str,
        landing: Landing,
        progress: Progress,
    ) -> Downloaded:
        """Download a public repository's form, filled in (CSV for GISAID, TSV for GenBank)."""
        path = scoped(org, slug, "samples/submission_template")
        return self._fetch(path, ids, landing, progress, repository)

    def qc_mutations(
        self, org: int, slug: str, ids: Sequence[str], landing: Landing, progress: Progress
    ) -> Downloaded:
        """Download quality and mutations (TSV)."""
        return self._fetch(scoped(org, slug, "qc_mutations/"), ids, landing, progress)

    def fasta_link(
        self, org: int, slug: str, ids: Sequence[str], consumer: str | None = None
    ) -> str:
        """Return a link from which anyone can download the genomes for an hour."""
        path, body = scoped(org, slug, "sequences/getfastaurl"), {"samples": list(ids)}
        more = {} if consumer is None else {"downstream_consumer": consumer}
        pick = under("url", str)
        return self._calls.ask("POST", path, pick, body={**body, **more}, safe=True, heavy=True)

    def _change(
        self, method: str, org: int, slug: str, key: str, body: Any, settle: Settle[list[T]]
    ) -> list[T]:
        path, pick = scoped(org, slug, "samples/"), under(key, list)
        return self._calls.ask(method, path, pick, body=body, settle=settle, heavy=True)

    def _fetch(
        self,
        path: str,
        ids: Sequence[str],
        landing: Landing,
        progress: Progress,
        repository: str | None = None,
    ) -> Downloaded:
        body = {"sample_ids": list(ids)}
        more = {} if repository is None else {"public_repository_name": repository}
        return self._calls.fetch("POST", path, landing, progress, body={**body, **more})


class Users(_Resource):
    """The ``/v2/users`` resource."""

    def me(self) -> Me:
        """Return the signed-in user."""
        return self._calls.ask("GET", ME, whole(Me))

    def update_me(self, change: MeChange) -> Me:
        """Update the signed-in user; this is idempotent."""
        return self._calls.ask("PUT", ME, whole(Me), body=change, safe=True)

    def create(self, user: NewUser) -> Me:
        """Create a user with a role in a group; the last published service does not support it."""
        return self._calls.ask("POST", "/v2/users/", whole(Me), body=user)

    def check_create(self) -> None:
        """Check that the user may create users; nothing is created.

        Raises:
            CredentialsError: The user may not.
        """
        self._check_create("/v2/users/")


class Groups(_Resource):
    """The ``/v2/groups`` resource."""

    def create(self, group: NewGroup) -> Group:
        """Create a group."""
        return self._calls.ask("POST", "/v2/groups/", whole(Group), body=group)

    def check_create(self) -> None:
        """Check that the user may create groups, which requires a system administrator.

        Raises:
            CredentialsError: The user may not.
        """
        self._check_create("/v2/groups/")

    def get(self, group: int) -> Group:
        """Return one group."""
        return self._calls.ask("GET", f"/v2/groups/{group}/", whole(Group))

    def members(self, group: int) -> list[Member]:
        """Return the group's members, in no particular order."""
        return self._calls.ask("GET", f"/v2/groups/{group}/members/", under("members", list))

    def invitations(self, group: int) -> list[Invitation]:
        """Return the group's invitations, including expired ones."""
        path = f"/v2/groups/{group}/invitations/"
        return self._calls.ask("GET", path, under("invitations", list))

    def invite(
        self, group: int, role: str, emails: list[str], settle: Settle[list[Invited]] = None
    ) -> list[Invited]:
        """Invite people, and return whether each invitation worked."""
        path, body = f"/v2/groups/{group}/invitations/", {"role": role, "emails": emails}
        return self._calls.ask("POST", path, under("invitations", list), body=body, settle=settle)


class Locations(_Resource):
    """The ``/v2/locations`` resource."""

    def all(self, depth: str | None = None) -> list[Location]:
        """Return all locations, down to ``depth``: region, country, division, or location."""
        query = {} if depth is None else {"max_location_depth": depth}
        return self._calls.list("/v2/locations/", "locations", list, query)

    def search(self, query: LocationQuery) -> list[Location]:
        """Return the locations with the closest spelling, however different they are."""
        path, pick = "/v2/locations/search/", under("locations", list)
        return self._calls.ask("POST", path, pick, body=query, safe=True)


class PhyloRuns(_Resource):
    """The ``/v2/orgs/.../phylo_runs`` resource."""

    def all(self, org: int, slug: str) -> list[PhyloRun]:
        """Return all runs that the user may see."""
        return self._calls.list(scoped(org, slug, "phylo_runs/"), "phylo_runs", list)

    def create(
        self, org: int, slug: str, run: NewPhyloRun, settle: Settle[PhyloRun] = None
    ) -> PhyloRun:
        """Start a run."""
        path, pick = scoped(org, slug, "phylo_runs/"), whole(PhyloRun)
        return self._calls.ask("POST", path, pick, body=run, settle=settle, heavy=True)

    def rename(self, org: int, slug: str, run: int, name: str) -> PhyloRun:
        """Rename a run and its tree; this is idempotent."""
        path = scoped(org, slug, f"phylo_runs/{run}")
        return self._calls.ask("PUT", path, whole(PhyloRun), body={"name": name}, safe=True)

    def delete(self, org: int, slug: str, run: int, settle: Settle[int] = None) -> int:
        """Delete a run, and return its ID."""
        path = scoped(org, slug, f"phylo_runs/{run}")
        return self._calls.ask("DELETE", path, under("id", int), settle=settle)


class PhyloTrees(_Resource):
    """The ``/v2/orgs/.../phylo_trees`` resource, and links that show trees."""

    def download(
        self,
        org: int,
        slug: str,
        tree: int,
        landing: Landing,
        progress: Progress,
        *,
        public_ids: bool = False,
    ) -> Downloaded:
        """Download the tree in the format of Auspice (JSON)."""
        path = scoped(org, slug, f"phylo_trees/{tree}/download")
        return self._calls.fetch("GET", path, landing, progress, query=_style(public_ids))

    def samples(
        self,
        org: int,
        slug: str,
        tree: int,
        landing: Landing,
        progress: Progress,
        *,
        public_ids: bool = False,
    ) -> Downloaded:
        """Download the tree's samples, and which were selected (TSV)."""
        path = scoped(org, slug, f"phylo_trees/{tree}/sample_ids")
        return self._calls.fetch("GET", path, landing, progress, query=_style(public_ids))

    def auspice_link(self, org: int, slug: str, tree: int) -> str:
        """Return a link to the tree, without a scheme. For a week, it grants the user's access."""
        path = scoped(org, slug, "auspice/generate")
        return self._calls.ask("POST", path, under("url", str), body={"tree_id": tree}, safe=True)

    def open_link(self, path: str, landing: Landing, progress: Progress) -> Downloaded:
        """Download the tree of a link, given the link's path, in the format of Auspice (JSON)."""
        return self._calls.fetch("GET", path, landing, progress)


class Api:
    """The API of one target; each attribute is one of its resources."""

    def __init__(self, calls: ApiCalls):
        self._calls = calls
        self.users = Users(calls)
        self.groups = Groups(calls)
        self.locations = Locations(calls)
        self.samples = Samples(calls)
        self.phylo_runs = PhyloRuns(calls)
        self.phylo_trees = PhyloTrees(calls)

    def pathogens(self) -> list[Pathogen]:
        """Return all pathogens."""
        return self._calls.ask("GET", "/v2/pathogens/", under("pathogens", list))

    def lineages(self) -> list[str]:
        """Return all Pango lineages, with wildcard parents and WHO names."""
        return self._calls.list("/v2/lineages/pango", "lineages", lambda found: [*map(str, found)])

    def usher_trees(self, org: int, slug: str) -> list[UsherTree]:
        """Return the versions of the tree that UShER can place samples on."""
        path = scoped(org, slug, "usher/tree_versions/")
        return self._calls.ask("GET", path, under("usher_options", list))


def _style(public_ids: bool) -> dict[str, str]:
    return {"id_style": "public"} if public_ids else {}
