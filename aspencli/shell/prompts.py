"""The prompt: the target, colored by its safety level, and the write mode."""

# IPython is only partly typed:
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
    """Return the styles of the console's own parts of the prompt."""
    colour = COLOURS[safety]
    return {TARGET: f"{colour} bold", WRITING: f"{colour} bold reverse"}


class ConsolePrompts(Prompts):
    """The prompts ``local In [1]:``, and ``local WRITE In [1]:`` where sessions may write.

    Args:
        shell: IPython shell.
        label: Display name of the target.
        writing: Returns True if sessions may write.
    """

    def __init__(self, shell: Any, label: str, writing: Callable[[], bool]):
        super().__init__(shell)
        self._label = label
        self._writing = writing

    def in_prompt_tokens(self) -> list[tuple[_TokenType, str]]:
        """Return the tokens shown before the input."""
        lead = [(TARGET, self._label), (Token.Prompt, " ")]
        if self._writing():
            lead += [(WRITING, "WRITE"), (Token.Prompt, " ")]
        return [*lead, *super().in_prompt_tokens()]


class LexerWhenTyped(Lexer):
    """A lexer that is not used until there is text to color.

    Its first use loads modules, which would delay the first prompt by 30 ms.

    Args:
        lexer: Lexer to delegate to.
    """

    def __init__(self, lexer: Lexer):
        self._lexer = lexer

    def lex_document(self, document: Document) -> Callable[[int], StyleAndTextTuples]:
        """Return a function from a line number to the styled text of that line."""
        return self._lexer.lex_document(document) if document.text else lambda _line: []


class CompleterWhenReady(Completer):
    """A completer that first waits until the names are loaded.

    Args:
        completer: Completer to delegate to.
        wait: Returns once they are loaded.
    """

    def __init__(self, completer: Completer, wait: Callable[[], object]):
        self._completer = completer
        self._wait = wait

    def get_completions(
        self, document: Document, complete_event: CompleteEvent
    ) -> Iterable[Completion]:
        """Return the possible completions."""
        self._wait()
        return self._completer.get_completions(document, complete_event)
