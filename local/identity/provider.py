"""An identity provider: the settings, state, and clock that every endpoint receives."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import Depends, Request

from local.identity.database import Database, kept_secret
from local.identity.keys import ensure_key
from local.identity.settings import Settings
from local.identity.trial import Knobs, Trial


class Provider:
    """The identity provider, as the endpoints use it.

    Args:
        settings: The settings to start with.

    Raises:
        BadInputError: The folder cannot be used.
        RefusedError: The folder belongs to another user.
    """

    def __init__(self, settings: Settings):
        self.settings = settings
        self.database = Database(settings.folder)
        self.trial = Trial(Knobs(dialect=settings.dialect))
        with self.database.writing() as db:
            ensure_key(db, self.now())
            self.form_secret = kept_secret(db, "forms")

    @property
    def knobs(self) -> Knobs:
        """Return the current values of the knobs."""
        return self.trial.knobs

    @property
    def issuer(self) -> str:
        """Return the provider's URL, ending in a slash."""
        return self.settings.issuer

    def now(self) -> float:
        """Return the current time, in seconds since 1970."""
        return time.time()


def _of(request: Request) -> Provider:
    provider: Provider = request.app.state.provider
    return provider


ProviderOf = Annotated[Provider, Depends(_of)]
"""An endpoint parameter: the provider."""
