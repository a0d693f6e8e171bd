"""The API, resource by resource, and the authenticated requests to it.

`ApiCalls.ask` describes the errors of the methods.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeAlias, TypeVar, cast
from urllib.parse import quote

from aspencli.errors import AspenError, BadInputError, CredentialsError
from aspencli.remote.downloads import BEYOND_END, Downloaded, Landing, Progress
from aspencli.remote.http import Answer, Request, items
from aspencli.remote.refusals import BrokenSamples, error_of, forbidden, no_api
from aspencli.remote.retry import Caller, Patience, SetbackError
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
Settle: TypeAlias = Callable[[], T | None] | None
"""Checks whether a change was made if its response was lost: see `ApiCalls.ask`."""
_ME = "/v2/users/me"
_QUICK = Patience(read=40, total=120)  # for requests that take about a second
_HEAVY = Patience(read=150, total=900)  # for those that may take two minutes
_DOWNLOAD = Patience(read=150, total=3_600)
_UNWANTED = 300  # the lowest status that is not a success, since redirects are not wanted
_UNAUTHORIZED, _FORBIDDEN, _NOT_VALID = 401, 403, 422


# Requests


class TokenSource(Protocol):
    """A source of tokens for requests."""

    def token(self) -> str:
        """Return the token to send, signing in first if necessary and possible.

        Raises:
            CredentialsError: There is no sign-in, and no terminal to sign in on.
        """

    def renew(self, refused: str) -> str | None:
        """Return a new token to replace a refused one, or None if there is none."""

    def advice(self) -> str:
        """Return a hint on what to do when the API refuses the token."""


@dataclass
class ApiCalls:
    """A sender of requests to the API of one target."""

    caller: Caller
    # The source of tokens. They go to that server and nowhere else, because the caller connects to
    # no other.
    tokens: TokenSource
    cookie: str | None = None  # the Cookie header for a proxy in front of it, or None
    broken: BrokenSamples = lambda _ids: []  # finds the samples that make the live service fail

    def ask(
        self,
        method: str,
        path: str,
        pick: Callable[[Any], T],
        *,
        body: Any = None,
        safe: bool | None = None,
        settle: Settle[T] = None,
        heavy: bool = False,
    ) -> T:
        """Send a request, and return what ``pick`` takes from its JSON response.

        A ``heavy`` request may take two minutes, such as a bulk change. With ``safe``, it may be
        sent twice; by default, only if it just reads. ``settle`` is called if the response to a
        change was lost: it checks whether the change was made, and returns its result, or None if
        it was not made and has to be sent again. The server may still be working on it then.

        Raises:
            AspenError: The request was refused or failed; its ``answer`` has the details.
            UncertainError: The response to a change was lost, and there is no ``settle``.
        """
        request = _request(method, path, body)
        read = partial(self._read, pick)
        patience = _HEAVY if heavy else _QUICK
        return self._do(lambda: request, read, patience, safe=safe, settle=settle)

    def _read(self, pick: Callable[[Any], T], answer: Answer) -> T:
        try:
            return pick(json.loads(answer.read()))
        except (ValueError, LookupError, TypeError) as error:
            raise no_api(answer, self.caller.name) from error

    def list(
        self,
        path: str,
        key: str,
        take: Callable[[Iterator[Any]], T],
        query: Mapping[str, str] | None = None,
    ) -> T:
        """Request the list under a key, and return what ``take`` makes of its items as they arrive.

        It must read all of them, since only the end shows that the list is complete. If the
        response breaks off, it is called again, from the first item.

        Raises:
            AspenError: See `ask`.
        """
        request = _request("GET", path, None, query)
        return self._do(lambda: request, partial(self._read_list, key, take), _HEAVY)

    def _read_list(self, key: str, take: Callable[[Iterator[Any]], T], answer: Answer) -> T:
        if answer.kind != "application/json":
            raise no_api(answer, self.caller.name)
        try:
            return take(items(answer.chunks(), key))
        except ValueError as error:
            raise SetbackError("the response is not a complete list", perhaps_done=False) from error

    def fetch(
        self,
        method: str,
        path: str,
        landing: Landing,
        progress: Progress,
        *,
        body: Any = None,
        query: Mapping[str, str] | None = None,
    ) -> Downloaded:
        """Download a file with a request that is safe to repeat.

        Raises:
            AspenError: See `ask`.
        """
        request = _request(method, path, body, query).having({"accept-encoding": "identity"})
        return self._do(
            lambda: request.having(landing.headers()),
            lambda answer: landing.take(answer, progress),
            _DOWNLOAD,
            safe=True,
            takes=BEYOND_END,
        )

    def _do(
        self,
        asking: Callable[[], Request],
        read: Callable[[Answer], T],
        patience: Patience,
        *,
        safe: bool | None = None,
        settle: Settle[T] = None,
        takes: int = 200,
    ) -> T:
        """Send a request, once more with another token if the first one is refused.

        ``takes`` is a status that does not count as an error here.
        """

        def checked(answer: Answer) -> T:
            if answer.status >= _UNWANTED and answer.status != takes:
                raise error_of(answer, self.caller.name, asking(), self.broken)
            return read(answer)

        def once(token: str) -> T:
            return self.caller.call(
                lambda: self._with_credentials(asking(), token),
                checked,
                patience,
                safe=safe,
                settle=settle,
            )

        token = self.tokens.token()
        try:
            try:
                return once(token)
            except CredentialsError as error:
                renewed = self.tokens.renew(token) if _status(error) == _UNAUTHORIZED else None
                if renewed is None:
                    raise
            return once(renewed)
        except CredentialsError as error:
            self._explain(error, asking())
            raise

    def _explain(self, error: CredentialsError, request: Request) -> None:
        """Add to the error who is signed in, and what to do about the refusal."""
        if _status(error) == _UNAUTHORIZED:
            error.hint = self.tokens.advice()
        elif _status(error) == _FORBIDDEN:
            try:
                me = None if request.path == _ME else self.ask("GET", _ME, whole(Me))
            except AspenError:  # then the refusal is explained without the user
                me = None
            error.details, error.hint = forbidden(request, me)

    def _with_credentials(self, request: Request, token: str) -> Request:
        request = request.having({"authorization": f"Bearer {token}"})
        return request.having({"cookie": self.cookie}) if self.cookie else request


def _request(method: str, path: str, body: Any, query: Mapping[str, str] | None = None) -> Request:
    if body is None:
        return Request(method, path, query or {})
    text = json.dumps(body, separators=(",", ":")).encode()
    return Request(method, path, query or {}, {"content-type": "application/json"}, text)


def _status(error: AspenError) -> int | None:
    return error.answer.status if error.answer else None


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


# Resources


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
        return self._calls.ask("GET", _ME, whole(Me))

    def update_me(self, change: MeChange) -> Me:
        """Update the signed-in user; this is idempotent."""
        return self._calls.ask("PUT", _ME, whole(Me), body=change, safe=True)

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
