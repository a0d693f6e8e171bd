"""API requests for samples and for the files generated from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from urllib.parse import quote

from aspencli.clients.api_calls import HEAVY, ApiCalls
from aspencli.clients.downloads import Downloaded, Landing, Progress
from aspencli.clients.picking import under
from aspencli.shapes import NewSample, Sample, SampleRecord

T = TypeVar("T")


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
