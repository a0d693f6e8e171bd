"""Which samples an operator means, by id, private or public identifier."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from aspencli.errors import BadInputError, NotFoundError
from aspencli.services.sample_fields import SampleKey
from aspencli.services.stored_text import folded, odd_in_identifier


@dataclass(frozen=True)
class Match:
    """A sample that a key names.

    Attributes:
        key: What was asked for.
        by: What of the sample it is.
        group: The name of the sample's group.
    """

    key: str
    sample_id: int
    by: SampleKey
    group: str


def settle_keys(
    keys: Sequence[str], matches: Iterable[Match], *, within: str | None
) -> list[Match]:
    """The sample that each key names, in the order of the keys, each sample once.

    Args:
        keys: What was asked for.
        matches: Whatever goes by one of the keys; of two matches of a sample the first counts.
        within: The group that was looked in, for messages; None means all.

    Raises:
        NotFoundError: Some key names no sample.
        BadInputError: Some key names several.
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
