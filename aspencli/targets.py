"""The deployments that can be administered, and the safety level of each."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Safety(Enum):
    """The safety level of a target, which determines how writes are confirmed."""

    LOCAL = "local"
    """A personal deployment; writes are confirmed with ``--yes`` or at the prompt."""
    SHARED = "shared"
    """A deployment used by colleagues; confirmed the same way, shown in another color."""
    PRODUCTION = "production"
    """Public health laboratories depend on it; its name must be given or typed."""


@dataclass(frozen=True)
class Target:
    """One deployment.

    Attributes:
        name: Its name, such as ``staging``.
        safety: Its safety level.
        stack: The stack of a remote development environment, or None.
        api_url: The address of its API, without a trailing slash; None if not known.
        database_url: The address of its database; None if not known. It may contain a password, so
            it is left out of ``repr``.
        secret_name: The name of its secret in AWS Secrets Manager, or None.
        aws_profile: The AWS profile that can read that secret, or None.
        auth_url: Its OpenID issuer, such as ``https://x.auth0.com``; None if not known.
        auth_client_id: The client whose tokens its API accepts; None if not known.
        auth_audience: The audience to request for the access token; usually None.
        belongs_to: The label of a stricter target at the same address, whose safety level therefore
            applies; None if there is none.
    """

    name: str
    safety: Safety
    stack: str | None = None
    api_url: str | None = None
    database_url: str | None = None
    secret_name: str | None = None
    aws_profile: str | None = None
    auth_url: str | None = None
    auth_client_id: str | None = None
    auth_audience: str | None = None
    belongs_to: str | None = None

    def __repr__(self) -> str:
        return f"Target({self.label!r}, {self.safety.value})"

    @property
    def label(self) -> str:
        """Return the name, with the stack if there is one: ``rdev/mystack``."""
        return f"{self.name}/{self.stack}" if self.stack else self.name

    @property
    def is_production(self) -> bool:
        """Return True if writes have to be confirmed by the target's name."""
        return self.safety is Safety.PRODUCTION

    @property
    def confirmed_by(self) -> str:
        """Return the name that confirms a write: that of the target that owns the address."""
        return self.belongs_to or self.label

    @property
    def title(self) -> str:
        """Return the target's name for prompts and banners: ``prod (as local)``."""
        return f"{self.belongs_to} (as {self.label})" if self.belongs_to else self.label

    @property
    def warning(self) -> str | None:
        """Return a warning if the address belongs to another target, or None."""
        if self.belongs_to is None:
            return None
        treated = "production" if self.is_production else f"{self.safety.value} target"
        return (
            f"Target: {self.label}, but this address belongs to {self.belongs_to}. "
            f"Treated as {'' if self.is_production else 'a '}{treated}."
        )


STRICTNESS = (Safety.LOCAL, Safety.SHARED, Safety.PRODUCTION)
"""The safety levels, from least to most strict."""


BUILT_IN: dict[str, Target] = {
    "local": Target("local", Safety.LOCAL),
    "rdev": Target(
        "rdev", Safety.SHARED, secret_name="dev/genepi-config", aws_profile="genepi-dev"
    ),
    "staging": Target(
        "staging",
        Safety.SHARED,
        secret_name="gestaging/genepi-config",
        aws_profile="genepi-dev",
    ),
    "prod": Target(
        "prod",
        Safety.PRODUCTION,
        api_url="https://api.czgenepi.org",
        secret_name="geprod/genepi-config",
        aws_profile="genepi-prod",
    ),
}
"""The four targets that every installation has, named as in the service's own Makefile."""
