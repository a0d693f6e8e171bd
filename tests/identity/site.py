"""A running identity provider and a database, as one target of the program."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from aspen.database.engine import Database
from tests.identity import population
from tests.identity.population import Population, Side
from tests.local.auth0.lab import MANAGEMENT, MANAGEMENT_SECRET, Identity, running_identity

_BURST = 10_000_000


@dataclass
class Site:
    """Both sides of one target.

    Attributes:
        identity: The identity provider.
        database: The database, which tests may write.
        address: The address of the provider in commands, if it is another one.
    """

    identity: Identity
    database: Database
    address: str | None = None
    _asked: int = 0  # requests of this object

    def fill(self, made: Population) -> None:
        """Replace everything on both sides."""
        population.fill_provider(self.identity.folder, made)
        population.fill_database(self.database, made)

    @property
    def provider_side(self) -> Side:
        """Return what the provider has."""
        return population.provider_side(self.identity.folder)

    @property
    def database_side(self) -> Side:
        """Return what the database has."""
        return population.database_side(self.database)

    @property
    def unequal(self) -> set[population.Found]:
        """Return the differences."""
        return population.unequal(self.provider_side, self.database_side)

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables that make this the target ``local``."""
        return {
            "ASPEN_DATABASE_URL_LOCAL": self.database.url.render_as_string(hide_password=False),
            "AUTH0_MANAGEMENT_DOMAIN": self.address or self.identity.issuer.rstrip("/"),
            "AUTH0_MANAGEMENT_CLIENT_ID": MANAGEMENT,
            "AUTH0_MANAGEMENT_CLIENT_SECRET": MANAGEMENT_SECRET,
        }

    def requests(self) -> int:
        """Return the number of requests to the Management API so far, without those of this."""
        with self.identity.management() as client:
            left = int(client.get("roles").raise_for_status().headers["x-ratelimit-remaining"])
        self._asked += 1
        return _BURST - left - self._asked

    def writes(self) -> int:
        """Return the number of requests so far that could change something."""
        return self.identity.log.count('"management.called"')


@contextmanager
def running_provider(folder: Path) -> Iterator[Identity]:
    """Run a provider that counts requests exactly: its rate limit never refills."""
    limit = ("--burst", str(_BURST), "--rate", "0.000001")
    with running_identity(folder, "--trial", *limit) as identity:
        yield identity
