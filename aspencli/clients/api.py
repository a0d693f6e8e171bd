"""The API of one target, resource by resource.

What the methods take and give is described in `aspencli.shapes`, what they raise in `ApiCalls.ask`.
Each resource fits a Protocol of a service that needs only some of its methods.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aspencli.clients.api_calls import HEAVY, ME, ApiCalls
from aspencli.clients.api_samples import Samples, scoped
from aspencli.clients.downloads import Downloaded, Landing, Progress
from aspencli.clients.picking import under, whole
from aspencli.errors import BadInputError
from aspencli.shapes import (
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
    NewUser,
    Pathogen,
    PhyloRun,
    UsherTree,
)

_NOT_VALID = 422


def _check(calls: ApiCalls, path: str) -> None:
    """Ask for something that cannot be made: the service checks the right first.

    The API tells nobody who is a system administrator. An empty object has none of the fields that
    are required, so the answer is 422 to who may, and 403 to who may not.

    Raises:
        CredentialsError: One may not.
    """
    try:
        calls.ask("POST", path, lambda _found: None, body={}, safe=True)
    except BadInputError as error:
        if error.answer is None or error.answer.status != _NOT_VALID:
            raise


class Users:
    """``/v2/users``."""

    def __init__(self, calls: ApiCalls):
        self._calls = calls

    def me(self) -> Me:
        """Who is signed in."""
        return self._calls.ask("GET", ME, whole(Me))

    def update_me(self, change: MeChange) -> Me:
        """Change something about oneself; doing it twice does no harm."""
        return self._calls.ask("PUT", ME, whole(Me), body=change, safe=True)

    def create(self, user: NewUser, settle: Callable[[], Me | None] | None = None) -> Me:
        """Create a user with a role in a group; the service as it was last published cannot."""
        return self._calls.ask("POST", "/v2/users/", whole(Me), body=user, settle=settle)

    def check_create(self) -> None:
        """Make sure that one may create users; nothing is created.

        Raises:
            CredentialsError: One may not.
        """
        _check(self._calls, "/v2/users/")


class Groups:
    """``/v2/groups``."""

    def __init__(self, calls: ApiCalls):
        self._calls = calls

    def create(self, group: NewGroup, settle: Callable[[], Group | None] | None = None) -> Group:
        """Create a group."""
        return self._calls.ask("POST", "/v2/groups/", whole(Group), body=group, settle=settle)

    def check_create(self) -> None:
        """Make sure that one may create groups, which takes a system administrator.

        Raises:
            CredentialsError: One may not.
        """
        _check(self._calls, "/v2/groups/")

    def get(self, group: int) -> Group:
        """One group."""
        return self._calls.ask("GET", f"/v2/groups/{group}/", whole(Group))

    def members(self, group: int) -> list[Member]:
        """Its members, in no order."""
        return self._calls.ask("GET", f"/v2/groups/{group}/members/", under("members", list))

    def invitations(self, group: int) -> list[Invitation]:
        """Its invitations, lapsed ones too."""
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
        """Invite people; the answer says for each whether that worked."""
        return self._calls.ask(
            "POST",
            f"/v2/groups/{group}/invitations/",
            under("invitations", list),
            body={"role": role, "emails": emails},
            settle=settle,
        )


class Locations:
    """``/v2/locations``."""

    def __init__(self, calls: ApiCalls):
        self._calls = calls

    def all(self, depth: str | None = None) -> list[Location]:
        """Every location; ``depth`` (region, country, division, location) is how far down."""
        query = {} if depth is None else {"max_location_depth": depth}
        return self._calls.list("/v2/locations/", "locations", _same, query)

    def search(self, query: LocationQuery) -> list[Location]:
        """The locations nearest to it by spelling, however far."""
        return self._calls.ask(
            "POST", "/v2/locations/search/", under("locations", list), body=query, safe=True
        )


class PhyloRuns:
    """``/v2/orgs/.../phylo_runs``."""

    def __init__(self, calls: ApiCalls):
        self._calls = calls

    def all(self, org: int, slug: str) -> list[PhyloRun]:
        """Every run that one may see."""
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
        """Give a run, and its tree, another name; doing it twice does no harm."""
        path = scoped(org, slug, f"phylo_runs/{run}")
        return self._calls.ask("PUT", path, whole(PhyloRun), body={"name": name}, safe=True)

    def delete(
        self, org: int, slug: str, run: int, settle: Callable[[], int | None] | None = None
    ) -> int:
        """Delete a run; its id."""
        path = scoped(org, slug, f"phylo_runs/{run}")
        return self._calls.ask("DELETE", path, under("id", int), settle=settle)


class PhyloTrees:
    """``/v2/orgs/.../phylo_trees``, and the links to show them."""

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
        """The tree as Auspice reads it (JSON)."""
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
        """Its samples, and which were selected (TSV)."""
        return self._fetch(org, slug, f"{tree}/sample_ids", landing, progress, public_ids)

    def auspice_link(self, org: int, slug: str, tree: int) -> str:
        """An address that shows the tree, without a scheme. For a week, who has it is you."""
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
        """What an operator calls this API, such as ``the API of prod``."""
        return self._calls.name

    def pathogens(self) -> list[Pathogen]:
        """Every pathogen."""
        return self._calls.ask("GET", "/v2/pathogens/", under("pathogens", list))

    def lineages(self) -> list[str]:
        """Every Pango lineage, with wildcard parents and WHO names."""
        return self._calls.list("/v2/lineages/pango", "lineages", str)

    def usher_trees(self, org: int, slug: str) -> list[UsherTree]:
        """The versions of the tree that UShER can place samples on."""
        return self._calls.ask(
            "GET", scoped(org, slug, "usher/tree_versions/"), under("usher_options", list)
        )


def _same(item: Any) -> Any:
    return item
