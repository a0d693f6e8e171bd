"""The record of an assistant's calls in the history."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from aspencli.changes.journal import Recording, open_journal
from aspencli.changes.masking import masked_text, masked_words
from aspencli.changes.runs import Counts, InputFile, Place, Subject

_LONGEST = 60  # characters of a client's name


def recorded(
    title: str, words: Sequence[str], target: str, client: str, warn: Callable[[str], None]
) -> Recording:
    """Return the record of a call, to be used in a ``with`` block.

    Args:
        title: The words of its command.
        words: Its command line.
        target: The label of its target.
        client: The name of the assistant's program.
        warn: Called with a message if the end of the call cannot be recorded.
    """
    return Recording(open_journal(), _subject(title, words, target, client), warn)


def _subject(title: str, words: Sequence[str], target: str, client: str) -> Subject:
    return Subject(
        command=title,
        target=target,
        place=Place(),
        group_id=None,
        group=None,
        file=InputFile(),
        counts=Counts(),
        via=None,
        single=True,
        argv=tuple(masked_words(words)),
        assistant=client_name(client),
    )


def client_name(given: str) -> str:
    """Return the name of the assistant's program as it is recorded; it is its own statement."""
    shown = "".join(character for character in given if character.isprintable()).strip()
    return masked_text(shown)[:_LONGEST] or "unknown"
