"""The operator of a run, as far as the history can name them without asking anyone for it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from aspencli.changes.masking import masked_words
from aspencli.errors import AspenError

if TYPE_CHECKING:
    from aspencli.changes.runs import Subject
    from aspencli.cli.context import AppContext

_API = "api"


def signed(context: AppContext, subject: Subject) -> Subject:
    """Return the facts about a run with its command line, and the user and account of the API."""
    account = account_id = account_name = None
    if subject.via == _API:
        if (acting := context.acting_account) is not None:
            account_name = acting.name
            account, account_id = acting.email or None, acting.subject or None
        with suppress(AspenError):  # a sign-in that cannot be read fails where it is needed
            if (known := context.access.session.known()) is not None:
                account, account_id = known.who, known.subject
    argv = tuple(masked_words(context.argv))
    return replace(
        subject,
        argv=argv,
        account=account,
        account_id=account_id,
        account_name=account_name,
    )
