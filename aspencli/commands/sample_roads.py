"""Access to samples through either backend: directly in the database, or through the API."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from aspencli import params
from aspencli.params import Road

if TYPE_CHECKING:
    from aspencli.context import AppContext
    from aspencli.output.paging import Found
    from aspencli.services.sample_fields import SampleKey
    from aspencli.services.sample_rows import SampleDetails, SampleQuery


@contextmanager
def listed(context: AppContext, via: Road | None, query: SampleQuery) -> Iterator[Found]:
    """Provide the samples that match a query."""
    road = params.chosen_road(context, via)
    params.announce(context, road)
    if road is Road.API:
        from aspencli.services.samples_asked import SamplesAsked

        yield SamplesAsked(context.api(), query, params.chosen_org(context))
        return
    from aspencli.services.samples import SampleList

    with context.database().reading() as session:
        yield SampleList(session, query)


def described(
    context: AppContext,
    via: Road | None,
    keys: Sequence[str],
    group: str | None,
    by: SampleKey | None,
) -> list[SampleDetails]:
    """Return the details of the samples that the keys identify."""
    road = params.chosen_road(context, via)
    params.announce(context, road)
    if road is Road.API:
        from aspencli.services.samples_asked import describe_asked

        org, slug = params.chosen_org(context), params.chosen_pathogen(context, None)
        return describe_asked(context.api(), keys, group=group, by=by, org=org, slug=slug)
    from aspencli.services.sample_details import describe_samples
    from aspencli.services.sample_keys import match_samples

    with context.database().reading() as session:
        return describe_samples(session, match_samples(session, keys, group=group, by=by))
