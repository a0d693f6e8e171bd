"""A client for the API of one target, resource by resource.

`aspencli.remote.types` describes the arguments and results of the methods, `ApiCalls.ask` their
errors. Each resource satisfies the Protocols of services that need only some of its methods.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from urllib.parse import quote

from aspencli.errors import BadInputError
from aspencli.remote.downloads import Downloaded, Landing, Progress
from aspencli.remote.transport import HEAVY, ME, ApiCalls, under, whole
from aspencli.remote.types import (
    Group,
    Invitation,
    Invited,
    Location,
    LocationQuery,
    Me,
    MeChange,
    Member,
    NewGroup,
    NewPhyloRun,
    NewSample,
    NewUser,
    Pathogen,
    PhyloRun,
    Sample,
    SampleRecord,
    UsherTree,
)

T = TypeVar("T")
_NOT_VALID = 422


def scoped(org: int, slug: str, rest: str) -> str:
    """Return the path of a resource that belongs to a group and a pathogen."""
    return f"/v2/orgs/{org}/pathogens/{quote(slug, safe='')}/{rest}"


class Samples:
    """The ``/v2/orgs/.../samples`` resource.

    ``settle`` checks whether a change was made if its response was lost: see `ApiCalls.ask`.
    """

    def __init__(self, calls: ApiCalls):
        self._calls = calls

    def all(self, org: int, slug: str) -> list[Sample]:
        """Return all visible samples in order of ID; 100,000 take half a gigabyte."""
        return self.map(org, slug, lambda sample: sample)

    def map(self, org: int, slug: str, keep: Callable[[Sample], T]) -> list[T]:
        """Return what ``keep`` returns for each sample; only that stays in memory."""
        return self._calls.list(scoped(org, slug, "samples/"), "samples", keep)

    def replace(
        self,
        org: int,
        slug: str,
        records: Sequence[SampleRecord],
        settle: Callable[[], list[Sample] | None] | None = None,
    ) -> list[Sample]:
        """Replace samples with complete records: all of them, or none.

        Repeating this is harmless only if no one else changed the samples in between, so it is not
        retried without ``settle``.
        """
        path = scoped(org, slug, "samples/")
        body = {"samples": list(records)}
        return self._change("PUT", path, "samples", body, settle)

    def create(
        self,
        org: int,
        slug: str,
        samples: Sequence[NewSample],
        settle: Callable[[], list[Sample] | None] | None = None,
    ) -> list[Sample]:
        """Create samples with their genomes: all of them, or none."""
        return self._change("POST", scoped(org, slug, "samples/"), "samples", list(samples), settle)

    def delete(
        self,
        org: int,
        slug: str,
        ids: Sequence[int],
        settle: Callable[[], list[int] | None] | None = None,
    ) -> list[int]:
        """Delete samples: all of them, or none. An ID that is given twice is not found."""
        return self._change(
            "DELETE", scoped(org, slug, "samples/"), "ids", {"ids": list(ids)}, settle
        )

    def missing(self, org: int, slug: str, ids: Sequence[str]) -> list[str]:
        """Return those of the identifiers, of any kind, that match no visible sample."""
        return self._calls.ask(
            "POST",
            scoped(org, slug, "samples/validate_ids/"),
            under("missing_sample_ids", list),
            body={"sample_ids": list(ids)},
            safe=True,
            patience=HEAVY,
        )

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
        body = {"sample_ids": list(ids)}
        more = {} if repository is None else {"public_repository_name": repository}
        path = scoped(org, slug, "sequences/")
        return self._calls.fetch("POST", path, landing, progress, body={**body, **more})

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
        body = {"sample_ids": list(ids), "public_repository_name": repository}
        path = scoped(org, slug, "samples/submission_template")
        return self._calls.fetch("POST", path, landing, progress, body=body)

    def qc_mutations(
        self, org: int, slug: str, ids: Sequence[str], landing: Landing, progress: Progress
    ) -> Downloaded:
        """Download quality and mutations (TSV)."""
        body = {"sample_ids": list(ids)}
        return self._calls.fetch(
            "POST", scoped(org, slug, "qc_mutations/"), landing, progress, body=body
        )

    def fasta_link(
        self, org: int, slug: str, ids: Sequence[str], consumer: str | None = None
    ) -> str:
        """Return a link from which anyone can download the genomes for an hour."""
        more = {} if consumer is None else {"downstream_consumer": consumer}
        return self._calls.ask(
            "POST",
            scoped(org, slug, "sequences/getfastaurl"),
            under("url", str),
            body={"samples": list(ids), **more},
            safe=True,
            patience=HEAVY,
        )

    def _change(
        self,
        method: str,
        path: str,
        key: str,
        body: Any,
        settle: Callable[[], list[T] | None] | None,
    ) -> list[T]:
        return self._calls.ask(
            method, path, under(key, list), body=body, settle=settle, patience=HEAVY
        )


class Users:
    """The ``/v2/users`` resource."""

    def __init__(self, calls: ApiCalls):
        self._calls = calls

    def me(self) -> Me:
        """Return the signed-in user."""
        return self._calls.ask("GET", ME, whole(Me))

    def update_me(self, change: MeChange) -> Me:
        """Update the signed-in user; this is idempotent."""
        return self._calls.ask("PUT", ME, whole(Me), body=change, safe=True)

    def create(self, user: NewUser, settle: Callable[[], Me | None] | None = None) -> Me:
        """Create a user with a role in a group; the last published service does not support it."""
        return self._calls.ask("POST", "/v2/users/", whole(Me), body=user, settle=settle)

    def check_create(self) -> None:
        """Check that the user may create users; nothing is created.

        Raises:
            CredentialsError: The user may not.
        """
        _check(self._calls, "/v2/users/")


class Groups:
    """The ``/v2/groups`` resource."""

    def __init__(self, calls: ApiCalls):
        self._calls = calls

    def create(self, group: NewGroup, settle: Callable[[], Group | None] | None = None) -> Group:
        """Create a group."""
        return self._calls.ask("POST", "/v2/groups/", whole(Group), body=group, settle=settle)

    def check_create(self) -> None:
        """Check that the user may create groups, which requires a system administrator.

        Raises:
            CredentialsError: The user may not.
        """
        _check(self._calls, "/v2/groups/")

    def get(self, group: int) -> Group:
        """Return one group."""
        return self._calls.ask("GET", f"/v2/groups/{group}/", whole(Group))

    def members(self, group: int) -> list[Member]:
        """Return the group's members, in no particular order."""
        return self._calls.ask("GET", f"/v2/groups/{group}/members/", under("members", list))

    def invitations(self, group: int) -> list[Invitation]:
        """Return the group's invitations, including expired ones."""
        return self._calls.ask(
            "GET", f"/v2/groups/{group}/invitations/", under("invitations", list)
        )

    def invite(
        self,
        group: int,
        role: str,
        emails: list[str],
        settle: Callable[[], list[Invited] | None] | None = None,
    ) -> list[Invited]:
        """Invite people, and return whether each invitation worked."""
        return self._calls.ask(
            "POST",
            f"/v2/groups/{group}/invitations/",
            under("invitations", list),
            body={"role": role, "emails": emails},
            settle=settle,
        )


class Locations:
    """The ``/v2/locations`` resource."""

    def __init__(self, calls: ApiCalls):
        self._calls = calls

    def all(self, depth: str | None = None) -> list[Location]:
        """Return all locations, down to ``depth``: region, country, division, or location."""
        query = {} if depth is None else {"max_location_depth": depth}
        return self._calls.list("/v2/locations/", "locations", _same, query)

    def search(self, query: LocationQuery) -> list[Location]:
        """Return the locations with the closest spelling, however different they are."""
        return self._calls.ask(
            "POST", "/v2/locations/search/", under("locations", list), body=query, safe=True
        )


class PhyloRuns:
    """The ``/v2/orgs/.../phylo_runs`` resource."""

    def __init__(self, calls: ApiCalls):
        self._calls = calls

    def all(self, org: int, slug: str) -> list[PhyloRun]:
        """Return all runs that the user may see."""
        return self._calls.list(scoped(org, slug, "phylo_runs/"), "phylo_runs", _same)

    def create(
        self,
        org: int,
        slug: str,
        run: NewPhyloRun,
        settle: Callable[[], PhyloRun | None] | None = None,
    ) -> PhyloRun:
        """Start a run."""
        path = scoped(org, slug, "phylo_runs/")
        return self._calls.ask(
            "POST", path, whole(PhyloRun), body=run, settle=settle, patience=HEAVY
        )

    def rename(self, org: int, slug: str, run: int, name: str) -> PhyloRun:
        """Rename a run and its tree; this is idempotent."""
        path = scoped(org, slug, f"phylo_runs/{run}")
        return self._calls.ask("PUT", path, whole(PhyloRun), body={"name": name}, safe=True)

    def delete(
        self, org: int, slug: str, run: int, settle: Callable[[], int | None] | None = None
    ) -> int:
        """Delete a run, and return its ID."""
        path = scoped(org, slug, f"phylo_runs/{run}")
        return self._calls.ask("DELETE", path, under("id", int), settle=settle)


class PhyloTrees:
    """The ``/v2/orgs/.../phylo_trees`` resource, and links that show trees."""

    def __init__(self, calls: ApiCalls):
        self._calls = calls

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
        return self._fetch(org, slug, f"{tree}/download", landing, progress, public_ids)

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
        return self._fetch(org, slug, f"{tree}/sample_ids", landing, progress, public_ids)

    def auspice_link(self, org: int, slug: str, tree: int) -> str:
        """Return a link to the tree, without a scheme. For a week, it grants the user's access."""
        path = scoped(org, slug, "auspice/generate")
        return self._calls.ask("POST", path, under("url", str), body={"tree_id": tree}, safe=True)

    def _fetch(
        self,
        org: int,
        slug: str,
        rest: str,
        landing: Landing,
        progress: Progress,
        public_ids: bool,
    ) -> Downloaded:
        path = scoped(org, slug, f"phylo_trees/{rest}")
        query = {"id_style": "public"} if public_ids else None
        return self._calls.fetch("GET", path, landing, progress, query=query)


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

    @property
    def name(self) -> str:
        """Return the display name of the API, such as ``the API of prod``."""
        return self._calls.name

    def pathogens(self) -> list[Pathogen]:
        """Return all pathogens."""
        return self._calls.ask("GET", "/v2/pathogens/", under("pathogens", list))

    def lineages(self) -> list[str]:
        """Return all Pango lineages, with wildcard parents and WHO names."""
        return self._calls.list("/v2/lineages/pango", "lineages", str)

    def usher_trees(self, org: int, slug: str) -> list[UsherTree]:
        """Return the versions of the tree that UShER can place samples on."""
        return self._calls.ask(
            "GET", scoped(org, slug, "usher/tree_versions/"), under("usher_options", list)
        )


def _same(item: Any) -> Any:
    return item


def _check(calls: ApiCalls, path: str) -> None:
    """Check a permission by requesting to create something from an empty object.

    The API does not say who is a system administrator, but it checks the permission first. An
    empty object lacks all required fields, so users who may create get a 422, and others a 403.

    Raises:
        CredentialsError: The user does not have the permission.
    """
    try:
        calls.ask("POST", path, lambda _found: None, body={}, safe=True)
    except BadInputError as error:
        if error.answer is None or error.answer.status != _NOT_VALID:
            raise
