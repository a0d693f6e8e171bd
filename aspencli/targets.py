"""The deployments that can be administered, and how dangerous each one is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Safety(Enum):
    """What a mistake costs on a target, and so how much a write has to be confirmed."""

    LOCAL = "local"
    """One person's own; a write is confirmed with ``--yes`` or at the prompt."""
    SHARED = "shared"
    """Colleagues work with it; confirmed the same way, shown in another colour."""
    PRODUCTION = "production"
    """Public-health laboratories depend on it; its name must be given or typed."""


@dataclass(frozen=True)
class Target:
    """One deployment.

    Attributes:
        name: What the operator calls it, such as ``staging``.
        safety: How much a write has to be confirmed.
        stack: The stack of a remote development environment, else None.
        api_url: Where its API answers, without a trailing slash; None when not known.
        database_url: Where its database answers; None when not known. May hold a password, so it
            is left out of ``repr``.
        secret_name: The name of its secret in AWS Secrets Manager, else None.
        aws_profile: The AWS profile that may read that secret, else None.
        auth_url: Who signs its users in (the OpenID issuer), such as ``https://x.auth0.com``; None
            when not known.
        auth_client_id: The client that its API accepts tokens of; None when not known.
        auth_audience: What the provider is to make the access token for; usually None.
        belongs_to: The label of a stricter target that has the same address, and whose safety
            therefore applies; None where there is none.
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
        """The name, with the stack where there is one: ``rdev/mystack``."""
        return f"{self.name}/{self.stack}" if self.stack else self.name

    @property
    def is_production(self) -> bool:
        """Whether a write wants the target's name."""
        return self.safety is Safety.PRODUCTION

    @property
    def confirmed_by(self) -> str:
        """Return the name that confirms a write: that of the target whose address it is."""
        return self.belongs_to or self.label

    @property
    def title(self) -> str:
        """Return what prompts and banners call the target: ``prod (as local)``."""
        return f"{self.belongs_to} (as {self.label})" if self.belongs_to else self.label

    @property
    def warning(self) -> str | None:
        """Return the sentence that says whose address it is; None where it is its own."""
        if self.belongs_to is None:
            return None
        treated = "production" if self.is_production else f"{self.safety.value} target"
        return (
            f"Target: {self.label}, but this address belongs to {self.belongs_to}. "
            f"Treated as {'' if self.is_production else 'a '}{treated}."
        )


STRICTNESS = (Safety.LOCAL, Safety.SHARED, Safety.PRODUCTION)
"""From the safety that asks least to the one that asks most."""


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
"""The four targets every installation knows (names as in the service's own Makefile)."""
