"""The answer to one press of TAB, from files only: no command is loaded, and nothing is connected.

The scripts of `aspencli.cli.completion.scripts` run it through variables of the environment. It
prints ``files`` if the shell should complete file names, otherwise ``values`` and one line for each
value, with its meaning after a tab. It prints no errors: a shell would show them in the prompt.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aspencli.cli.completion.values import (
    KINDS,
    Name,
    history_runs,
    load,
    needs_refresh,
)

MODE = "_ASPENCLI_COMPLETE"
ANSWER, REFRESH = "values", "refresh"
"""The values of `MODE` that this package serves; Typer serves others, for its own scripts."""
TARGET = "_ASPENCLI_TARGET"
TREE = Path(__file__).with_name("tree.json")
_QUOTED = frozenset(" \t\n\\\"'$`&|;<>()*?[]{}!#~^")


def answer() -> None:
    """Print the completions for the words in the environment."""
    with suppress(Exception):  # an error would appear in the prompt
        word = _bash_word() if os.environ.get("_ASPENCLI_SHELL") == "bash" else _plain_word()
        found = Completer(word.words).complete()
        lines = ["files" if found.files else "values"]
        for value, about in found.names:
            if value.startswith(word.words[-1]):
                lines.append(word.shown(value) + ("\t" + about if about and word.has_help else ""))
        with open(1, "w", encoding="utf-8", errors="surrogateescape", closefd=False) as stdout:
            stdout.write("\n".join(lines) + "\n")
        if found.kind in KINDS and found.label is not None:
            _refresh(found.label, found.kind)


@dataclass
class Word:
    """The words so far, the last of which is to be completed, and how values are printed."""

    words: Sequence[str]
    has_help: bool = True
    replaced_from: int = 0  # characters of the value that the shell keeps
    is_escaped: bool = False

    def shown(self, value: str) -> str:
        """Return a value as the shell inserts it."""
        rest = value[self.replaced_from :]
        if not self.is_escaped:
            return rest
        return "".join(f"\\{char}" if char in _QUOTED else char for char in rest)


def _plain_word() -> Word:
    return Word(os.environ.get("_ASPENCLI_WORDS", "").split("\n"))


def _bash_word() -> Word:
    """Return the words of bash's command line.

    Bash replaces only what follows the last of its word breaks, such as ``@`` and ``=``, and
    inserts values as they are, so that they have to be escaped outside quotes.
    """
    breaks = os.environ.get("_ASPENCLI_BREAKS", "")
    words: list[str] = []
    word, quote, start, is_begun, escaped = "", "", 0, False, False
    for char in os.environ.get("_ASPENCLI_LINE", ""):
        if escaped:
            word, escaped = word + char, False
        elif char == "\\" and quote != "'":
            escaped = is_begun = True
        elif quote:
            if char == quote:
                quote = ""
            else:
                word += char
        elif char in "\"'":
            quote, is_begun, start = char, True, len(word)
        elif char in " \t\n":
            if is_begun or word:
                words.append(word)
            word, is_begun, start = "", False, 0
        else:
            word += char
            if char in breaks:  # bash replaces an @ as well, as the start of a host name
                start = len(word) - (char == "@")
    return Word([*words, word], has_help=False, replaced_from=start, is_escaped=not quote)


@dataclass
class Found:
    """The values for the last word of a command line."""

    names: list[Name] = field(default_factory=list)
    files: bool = False
    kind: str = ""  # of stored values
    label: str | None = None  # the target that they belong to


class Completer:
    """The state of a command line after its complete words.

    Args:
        words: The program, and the words after it; the last is to be completed.
    """

    def __init__(self, words: Sequence[str]):
        self._tree: Mapping[str, Any] = json.loads(TREE.read_text(encoding="utf-8"))
        self._commands: Mapping[str, Any] = self._tree["commands"]
        self._path: list[str] = []
        self._given: dict[str, str] = {}
        self._words: list[str] = []  # arguments of the command
        self._option = ""  # whose value is next
        self._only_arguments = False
        *before, self._current = words
        for word in before[1:]:
            self._take(word)

    @property
    def _entry(self) -> Mapping[str, Any]:
        entry: Mapping[str, Any] = self._commands[" ".join(self._path)]
        return entry

    def _options(self) -> dict[str, Any]:
        found = dict(self._entry.get("options", {}))
        default = self._tree["defaults"].get(" ".join(self._path))
        if default:
            found |= self._commands[" ".join([*self._path, default])].get("options", {})
        return {**found, **{k: v for k, v in self._tree["globals"].items() if k not in found}}

    def _take(self, word: str) -> None:
        if self._option:
            self._given[self._option], self._option = word, ""
        elif not self._only_arguments and word == "--":
            self._only_arguments = True
        elif not self._only_arguments and word.startswith("-") and word != "-":
            name, is_joined, value = word.partition("=")
            options = self._options()
            name = name if name in options else name.replace("_", "-")
            if word == "--local":
                self._given["--env"] = "local"
            elif options.get(name, (None, ""))[0] is None:
                return
            elif is_joined:
                self._given[name] = value
            else:
                self._option = name
        elif self._entry.get("group"):
            name = word.replace("_", "-")
            if not self._path:
                name = self._tree["aliases"].get(name, name)
            if " ".join([*self._path, name]) not in self._commands:
                raise LookupError(name)
            self._path.append(name)
        else:
            self._words.append(word)

    def complete(self) -> Found:
        """Return what can be typed for the last word."""
        current, options = self._current, self._options()
        if self._option:
            return self._values(options[self._option][0])
        if current.startswith("-") and not self._only_arguments:
            name, is_joined, _value = current.partition("=")
            if is_joined:
                found = self._values(options.get(name, ("none", ""))[0])
                found.names = [(f"{name}={value}", about) for value, about in found.names]
                return found
            return Found([(name, about) for name, (_value, about) in options.items()])
        if self._entry.get("group"):
            return Found(list(self._subcommands(self._path)))
        arguments = self._entry.get("arguments", [])
        is_repeated = bool(arguments) and arguments[-1][1]
        rest = [*arguments[len(self._words) :], *arguments[-1:] * is_repeated, ["none", False]]
        return self._values(rest[0][0])

    def _subcommands(self, path: Sequence[str]) -> Iterator[Name]:
        for words, entry in self._commands.items():
            *parent, name = words.split(" ")
            if name and parent == list(path) and not entry.get("hidden"):
                yield name, entry["help"]

    def _values(self, spec: Any) -> Found:
        if isinstance(spec, list):
            return Found([(value, "") for value in spec])
        if spec == "files":
            return Found(files=True)
        if spec == "commands":
            return Found(list(self._subcommands(self._words)))
        if spec == "history_runs":
            return Found(list(history_runs()))
        if spec in {"targets", "labels", "settings", "setting_values"}:
            return Found(list(self._configured(spec)))
        return self._stored(spec) if spec in KINDS else Found()

    def _config(self) -> Any:
        from aspencli.config import Config

        flags = {name: self._given.get(f"--{name}") for name in ("env", "stack")}
        return Config(flags)

    def _configured(self, spec: str) -> Iterator[Name]:
        if spec == "settings":
            from aspencli.config import setting_names

            yield from ((name, "") for name in setting_names(self._config().targets))
            return
        if spec == "setting_values":
            key = self._words[0].rpartition(".")[2]
            if key != "env":
                from aspencli.config import setting_choices

                yield from ((value, "") for value in setting_choices(key))
                return
        for name, target in self._config().targets.items():
            if spec == "labels" and name == "rdev":
                stacks = load("rdev").get("stacks", {}).get("names", ())
                yield from ((f"rdev/{stack}", "") for stack, _about in stacks)
            yield name, f"{target.safety.value} target"

    def _stored(self, kind: str) -> Found:
        from aspencli.config import Safety

        if kind == "stacks":
            return Found([(name, about) for name, about in load("rdev").get(kind, _NONE)["names"]])
        target = self._config().target
        kinds = load(target.label)
        # A job can be named by the ID of its run.
        wanted = (kind, "phylo_runs") if kind == "jobs" else (kind,)
        names = [tuple(name) for each in wanted for name in kinds.get(each, _NONE)["names"]]
        is_plain = target.name == "local" or target.database_url is not None
        is_far = target.way not in {None, "direct"} or target.bastion or target.iam_user
        may_refresh = target.safety is not Safety.PRODUCTION and is_plain and not is_far
        return Found(
            list(dict(names).items()),
            kind="phylo_runs" if kind == "jobs" else kind,
            label=target.label if may_refresh else None,
        )


_NONE: Mapping[str, Any] = {"names": ()}


def _refresh(label: str, kind: str) -> None:
    """Start a process that stores current names of a target, unless they are recent."""
    if not needs_refresh(label, kind):
        return
    environment = {**os.environ, MODE: REFRESH, TARGET: label}
    null = os.open(os.devnull, os.O_RDWR)
    streams = [(os.POSIX_SPAWN_DUP2, null, number) for number in range(3)]
    # A group of its own, so that Ctrl-C at the prompt does not reach it.
    os.posix_spawn(
        sys.executable,
        [sys.executable, "-m", "aspencli"],
        environment,
        file_actions=streams,
        setpgroup=0,
    )
