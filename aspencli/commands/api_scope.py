"""The group, pathogen, and identifiers that a request to the API refers to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from aspencli import params
from aspencli.errors import BadInputError
from aspencli.params import Road

if TYPE_CHECKING:
    from aspencli.context import AppContext
    from aspencli.services.orgs import Scope


def chosen_scope(
    context: AppContext, group: str | None, pathogen: str | None, *, writing: bool = False
) -> Scope:
    """Return the chosen group and pathogen, and print them on a terminal.

    Args:
        context: Application context.
        group: Group given on the command line, if any.
        pathogen: Pathogen given on the command line, if any.
        writing: Whether the command changes data of the group, including in a dry run.

    Raises:
        CredentialsError: If the command writes, and the user may only read.
    """
    from aspencli.services.orgs import Scope, find_org, require_writer

    org = find_org(context.api(), params.chosen_group(context, group))
    if writing:
        require_writer(context.api().users.me(), org)
    scope = Scope(org, pathogen or context.config.value("pathogen_slug") or "")
    if context.out.err.isatty():
        context.out.info(f"{params.road_words(context, Road.API)}, for {scope}")
    return scope


def named_group(context: AppContext, given: str | None, option: str | None) -> str:
    """Return the group named by argument, option, or ``--org``; there is no other default.

    Raises:
        BadInputError: If no group is named, or two different ones are.
    """
    if given is not None and option is not None and given != option:
        raise BadInputError(
            f"two groups were named: {given} and {option}", hint="Name one of them."
        )
    found = params.chosen_group(context, given or option)
    if found is None:
        raise BadInputError(
            "no group was named", hint="Name it by id, name or prefix; or set CZGE_ORG."
        )
    return found


def chosen_ids(
    context: AppContext, given: Iterable[str] | None, file: str | None, columns: Sequence[str]
) -> list[str]:
    """Return the given identifiers without duplicates."""
    from aspencli.services.id_list import read_ids

    found = read_ids(list(given or ()), file, columns)
    if found.repeated:
        context.out.info(f"Note: named more than once, and taken once: {found.repeated:,}.")
    return found.ids


def known_ids(
    context: AppContext, scope: Scope, ids: Sequence[str], *, skip_missing: bool
) -> list[str]:
    """Return the identifiers that match a sample.

    Raises:
        NotFoundError: If some do not, and ``skip_missing`` is not set; or if none does.
    """
    from aspencli.services.named import find_missing, unknown

    with context.out.progress("Looking the samples up", len(ids)) as tick:
        missing = find_missing(context.api().samples, scope, ids, tick)
    gone = frozenset(missing)
    known = [each for each in ids if each not in gone]
    if missing and not (skip_missing and known):
        raise unknown(missing, len(ids), "To go on without them, add --skip-missing.")
    for each in missing:
        context.out.warn(f"left out: {each} names no sample that you may see")
    return known
