"""One identity provider: its settings, its state and its clock, as every endpoint is handed it."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import Depends, Request

from local.identity.database import Database, kept_secret
from local.identity.keys import ensure_key
from local.identity.settings import Settings
from local.identity.trial import Knobs, Trial


class Provider:
    """What the endpoints work with.

    Args:
        settings: What it was started with.

    Raises:
        BadInputError: Its folder cannot be used.
        RefusedError: Its folder belongs to another user.
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
        """How it behaves now."""
        return self.trial.knobs

    @property
    def issuer(self) -> str:
        """Its address, ending in a slash."""
        return self.settings.issuer

    def now(self) -> float:
        """The time, in seconds since 1970."""
        return time.time()


def _of(request: Request) -> Provider:
    provider: Provider = request.app.state.provider
    return provider


ProviderOf = Annotated[Provider, Depends(_of)]
"""The provider, as an endpoint's parameter."""
