"""The prompt: the target in the colour of its danger, and whether the console writes."""

# IPython is typed in parts only:
# mypy: disallow-untyped-calls=False

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from IPython.terminal.prompts import Prompts
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.lexers import Lexer
from pygments.token import Token, _TokenType

from aspencli.targets import Safety

COLOURS = {
    Safety.LOCAL: "ansigreen",
    Safety.SHARED: "ansiyellow",
    Safety.PRODUCTION: "ansired",
}
TARGET = Token.Prompt.Target
WRITING = Token.Prompt.Writing


def styles(safety: Safety) -> dict[_TokenType, str]:
    """How the parts of the prompt look that are ours."""
    colour = COLOURS[safety]
    return {TARGET: f"{colour} bold", WRITING: f"{colour} bold reverse"}


class ConsolePrompts(Prompts):
    """``local In [1]:``, and ``local WRITE In [1]:`` where sessions may write.

    Args:
        shell: IPython.
        label: What the operator calls the target.
        writing: Tells whether sessions may write.
    """

    def __init__(self, shell: Any, label: str, writing: Callable[[], bool]):
        super().__init__(shell)
        self._label = label
        self._writing = writing

    def in_prompt_tokens(self) -> list[tuple[_TokenType, str]]:
        """What stands before the input."""
        lead = [(TARGET, self._label), (Token.Prompt, " ")]
        if self._writing():
            lead += [(WRITING, "WRITE"), (Token.Prompt, " ")]
        return [*lead, *super().in_prompt_tokens()]


class LexerWhenTyped(Lexer):
    """A lexer that is left alone until there is something to colour.

    What it loads for the first time would keep the first prompt waiting (30 ms).

    Args:
        lexer: The one that colours.
    """

    def __init__(self, lexer: Lexer):
        self._lexer = lexer

    def lex_document(self, document: Document) -> Callable[[int], StyleAndTextTuples]:
        """The styled text of each line, by its number."""
        return self._lexer.lex_document(document) if document.text else lambda _line: []


class CompleterWhenReady(Completer):
    """A completer that first waits until the names are there.

    Args:
        completer: The one that completes.
        wait: Returns when they are.
    """

    def __init__(self, completer: Completer, wait: Callable[[], object]):
        self._completer = completer
        self._wait = wait

    def get_completions(
        self, document: Document, complete_event: CompleteEvent
    ) -> Iterable[Completion]:
        """What could be meant."""
        self._wait()
        return self._completer.get_completions(document, complete_event)
