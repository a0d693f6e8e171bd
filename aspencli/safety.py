"""Whether a write may go ahead: asked, confirmed by name, or refused."""

from __future__ import annotations

from dataclasses import dataclass

from aspencli.errors import RefusedError
from aspencli.output.console import Output
from aspencli.targets import Target


@dataclass(frozen=True)
class Consent:
    """What was said on the command line.

    Attributes:
        yes: ``--yes`` was given.
        name: The target's name as given with ``--confirm``, else None.
    """

    yes: bool = False
    name: str | None = None


def authorise(target: Target, consent: Consent, out: Output, what: str) -> None:
    """Return only when the write is wanted.

    On production ``--yes`` is not enough: the target's name must be given or typed.

    Raises:
        RefusedError: Declined, confirmed by a wrong name, or nobody is there to ask.
    """
    if consent.name is not None:
        _match(target, consent.name)
    elif target.is_production:
        _ask_name(target, out, what)
    elif not consent.yes:
        _ask(target, out, what)


def _match(target: Target, name: str) -> None:
    if name not in {target.name, target.label}:
        raise RefusedError(
            f"--confirm {name} does not name the target, which is {target.label}; "
            "nothing was written",
            hint=f"Check --env; then give --confirm {target.label}.",
        )


def _ask_name(target: Target, out: Output, what: str) -> None:
    if not out.interactive:
        raise RefusedError(
            f"{target.label} is production, and --yes is not enough to {what}; nothing was written",
            hint=f"Look at the plan with --dry-run, then add --confirm {target.label}.",
        )
    if out.ask(f"Type {target.label} to {what}:") != target.label:
        raise RefusedError("not confirmed; nothing was written")


def _ask(target: Target, out: Output, what: str) -> None:
    if not out.interactive:
        raise RefusedError(
            f"nobody is there to confirm: {what} on {target.label}; nothing was written",
            hint="Look at the plan with --dry-run, then add --yes.",
        )
    if not out.confirm(f"{what[0].upper()}{what[1:]} on {target.label}?"):
        raise RefusedError("declined; nothing was written")
