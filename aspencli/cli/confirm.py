"""Confirmation of writes, as strict as the target's safety level requires."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from aspencli.cli.output.console import Output
from aspencli.errors import RefusedError
from aspencli.targets import Target


@dataclass(frozen=True)
class Consent:
    """The confirmation given on the command line.

    Attributes:
        yes: True if ``--yes`` was given.
        name: The target's name given with ``--confirm``, or None.
    """

    yes: bool = False
    name: str | None = None


def authorize(
    target: Target,
    consent: Consent,
    out: Output,
    what: str,
    *,
    by_name: bool = False,
    dry_run: bool = True,
    stdin: str = "",
) -> None:
    """Return only if the write is confirmed.

    On production, and anywhere if ``by_name`` is set, ``--yes`` is not enough: the target's name
    must be given or typed. If the address belongs to another target, that target's name counts.
    ``dry_run`` means that the command has ``--dry-run``, which the hint then mentions. ``stdin`` is
    the noun for the file on standard input, if that is where the input comes from.

    Raises:
        RefusedError: The write was declined, the name is wrong, or there is no terminal to ask on.
    """
    if target.warning:
        out.warn(target.warning)
    if stdin and consent.name is None and (target.is_production or not consent.yes):
        _refuse_beside(stdin, target, what)
    if consent.name is not None:
        _match(target, consent.name)
    elif target.is_production or by_name:
        _ask_name(target, out, what, _first(dry_run))
    elif not consent.yes:
        _ask(target, out, what, _first(dry_run))


def _match(target: Target, name: str) -> None:
    accepted = {target.belongs_to} if target.belongs_to else {target.name, target.label}
    if name not in accepted:
        raise RefusedError(
            f"--confirm {name} does not match the target, {target.confirmed_by}; "
            "nothing was written.",
            hint=f"Check --env, then pass --confirm {target.confirmed_by}.",
        )


def _refuse_beside(stdin: str, target: Target, what: str) -> None:
    name = shlex.quote(target.confirmed_by)
    flag = f"--confirm {name}" if target.is_production else "--yes"
    raise RefusedError(
        f"Confirmation required to {what} on {target.label}, but standard input is the {stdin}; "
        "nothing was written.",
        hint=f"Review the plan with --dry-run, then add {flag}.",
    )


def _first(dry_run: bool) -> str:
    return "Review the plan with --dry-run, then pass" if dry_run else "Pass"


def _ask_name(target: Target, out: Output, what: str, first: str) -> None:
    if not out.interactive:
        where = f" on production ({target.confirmed_by})" if target.is_production else ""
        raise RefusedError(
            f"Confirmation by name required to {what}{where}; nothing was written.",
            hint=f"{first} --confirm {target.confirmed_by}.",
        )
    if out.ask(f"Type {target.confirmed_by} to {what}:") != target.confirmed_by:
        raise RefusedError("Not confirmed; nothing was written.")


def _ask(target: Target, out: Output, what: str, first: str) -> None:
    if not out.interactive:
        raise RefusedError(
            f"Confirmation required to {what} on {target.label}, but this is not a terminal; "
            "nothing was written.",
            hint=f"{first} --yes.",
        )
    if not out.confirm(f"{what[0].upper()}{what[1:]} on {target.label}?"):
        raise RefusedError("Declined; nothing was written.")
