"""Match keys to samples, by ID, private identifier, or public identifier."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from aspencli.errors import BadInputError, NotFoundError
from aspencli.services.sample_fields import SampleKey
from aspencli.services.stored_text import folded, odd_in_identifier


@dataclass(frozen=True)
class Match:
    """A sample that matches a key.

    Attributes:
        key: The key.
        by: The field that it matches.
        group: The name of the sample's group.
    """

    key: str
    sample_id: int
    by: SampleKey
    group: str


def settle_keys(
    keys: Sequence[str], matches: Iterable[Match], *, within: str | None
) -> list[Match]:
    """Return the sample that each key names, in the order of the keys, without duplicates.

    Args:
        keys: The keys to resolve.
        matches: All matches; if a sample matches a key twice, the first counts.
        within: The group that was searched, for messages; None for all.

    Raises:
        NotFoundError: A key matches no sample.
        BadInputError: A key matches several samples.
    """
    found: defaultdict[str, dict[int, Match]] = defaultdict(dict)
    for match in matches:
        found[match.key].setdefault(match.sample_id, match)
    _demand_found([key for key in keys if key not in found], within=within)
    _demand_single([match for each in found.values() if len(each) > 1 for match in each.values()])
    named: dict[int, Match] = {}
    for key in keys:
        match = next(iter(found[key].values()))
        named.setdefault(match.sample_id, match)
    return list(named.values())


def _demand_found(missing: list[str], *, within: str | None) -> None:
    if missing:
        place = f" in group {within}" if within is not None else ""
        odd = [(key, found) for key in dict.fromkeys(missing) if (found := odd_in_identifier(key))]
        meant = f"Try {folded(odd[0][0])!r}. " if odd else ""
        raise NotFoundError(
            f"there is no sample {', '.join(repr(key) for key in dict.fromkeys(missing))}{place}",
            hint=f"{meant}Look for a part of it: aspencli samples list --search TEXT",
            details=[f"{key!r} contains {found[0]}" for key, found in odd],
        )


def _demand_single(ambiguous: list[Match]) -> None:
    if ambiguous:
        raise BadInputError(
            "several samples go by that name; nothing is shown",
            hint="Add --group, or --by id, private_identifier or public_identifier.",
            details=[
                f"{match.key!r} is the {match.by.value} of sample {match.sample_id}"
                f" (group {match.group})"
                for match in ambiguous
            ],
        )
