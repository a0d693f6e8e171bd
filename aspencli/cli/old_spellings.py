"""Translation of the old command-line tool's spellings before a command is parsed.

This keeps options of the old tool out of the help. If a spelling had another meaning in the old
tool than the help suggests, the old meaning is kept only where nothing else can be meant.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

TRUE, FALSE = (
    frozenset({"true", "t", "yes", "y", "on"}),
    frozenset({"false", "f", "no", "n", "off"}),
)
"""The words for booleans, without 1 and 0, which can also be sample IDs."""


@dataclass(frozen=True)
class Old:
    """The old spellings of one command.

    Attributes:
        options: The current name of each option.
        flags: The current arguments for each flag.
        booleans: The current flags for yes and no, by option that took a word.
        headers: The flags that asked for headers, which every machine format now has.
        positionals: Rewrites the positional arguments.
    """

    options: Mapping[str, str] = field(default_factory=dict)
    flags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    booleans: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    headers: Collection[str] = ()
    positionals: Callable[[list[str]], tuple[list[str], list[str]]] | None = None


def _email(words: list[str]) -> tuple[list[str], list[str]]:
    """Turn the first argument, the address of a new user, into ``--email``."""
    return words[1:], ["--email", words[0]] if words else []


def _subtree(words: list[str]) -> tuple[list[str], list[str]]:
    """Turn the last argument into ``--subtree-size`` if it is a number."""
    is_size = len(words) > 1 and words[-1].isascii() and words[-1].isdigit()
    return (words[:-1], ["--subtree-size", words[-1]]) if is_size else (words, [])


_SAMPLE = {"--private-id": "--private-identifier", "--public-id": "--public-identifier"}
_PRIVATE = {"--private": ("--private", "--public")}
_TREE = Old(
    flags={
        "--public-ids": ("--id-style", "public"),
        "--private-ids": ("--id-style", "private"),
    }
)
OLD: Mapping[tuple[str, str], Old] = {
    ("usher", "get-link"): Old(positionals=_subtree),
    ("users", "update-me"): Old(
        options={"--ack-policy-version": "--acknowledged-policy-version"},
        booleans={"--agreed-to-tos": ("--agreed-to-tos", "--not-agreed-to-tos")},
    ),
    ("users", "create"): Old(flags={"--group-admin": ("--role", "admin")}, positionals=_email),
    ("groups", "create"): Old(options={"--tree-location": "--default-tree-location"}),
    ("phylo-trees", "download"): _TREE,
    ("phylo-trees", "selected-samples"): _TREE,
    ("samples", "update"): Old(options=_SAMPLE, booleans=_PRIVATE),
    ("samples", "create"): Old(options=_SAMPLE, booleans=_PRIVATE),
    ("samples", "validate-ids"): Old(headers=("-h", "--show-headers")),
    ("phylo-runs", "create"): Old(
        options={"-n": "--name", "-t": "--tree-type", "--type": "--tree-type"}
        | {"-a": "--template-args"},
        headers=("-h", "--show-headers"),
    ),
    ("phylo-runs", "list"): Old(headers=("--print-headers",)),
}
"""Keyed by the current names of group and command."""


def modernize(
    command: tuple[str, str], args: Sequence[str], known: Mapping[str, bool]
) -> list[str]:
    """Rewrite the arguments of a command.

    Args:
        command: The current names of the group and the command.
        args: The arguments after them.
        known: The command's option names, and whether each takes a value.
    """
    old = OLD.get(command)
    if old is None:  # the arguments may be for another program, so their order is kept
        return [_hyphened(typed, known) for typed in args]
    options: list[str] = []
    words: list[str] = []
    queue = list(args)
    # On its own, -h always means help.
    drops = {name for name in old.headers if name != "-h" or len(queue) > 1}
    while queue:
        typed = queue.pop(0)
        if typed == "--":  # the rest are positional arguments
            return [*options, *_placed(old, [*words, *queue], after_dashes=True)]
        if typed == "-" or not typed.startswith("-"):
            words.append(typed)
        elif typed not in drops:
            options += _option(old, typed, queue, known)
    return [*options, *_placed(old, words)]


def _placed(old: Old, words: list[str], *, after_dashes: bool = False) -> list[str]:
    found: list[str] = []
    if old.positionals is not None:
        words, found = old.positionals(words)
    return [*found, *(["--"] if after_dashes else []), *words]


def _option(old: Old, typed: str, queue: list[str], known: Mapping[str, bool]) -> list[str]:
    """Rewrite an option, taking its value from the queue if needed."""
    if not typed.startswith("--") and typed[:2] not in old.options:
        return _short(typed, queue, known)
    name, is_joined, value = typed.partition("=")
    if not typed.startswith("--"):
        name, value = typed[:2], typed[2:]
        is_joined = "=" if value else ""
    if name not in known:
        hyphened = name.replace("_", "-")
        name = old.options.get(hyphened, hyphened)
    if name in old.flags:
        return list(old.flags[name])
    if name in old.booleans:
        word = value if is_joined else queue[0] if queue else ""
        meant = word.strip().lower()
        if meant in TRUE or meant in FALSE:
            if not is_joined:
                queue.pop(0)
            return [old.booleans[name][meant in FALSE]]
    takes_next = known.get(name, False) and not is_joined and queue
    return [name + is_joined + value, *([queue.pop(0)] if takes_next else [])]


def _short(typed: str, queue: list[str], known: Mapping[str, bool]) -> list[str]:
    """Return a group of short options, with the value of the last one if it takes one."""
    for number, letter in enumerate(typed[1:], start=2):
        if known.get(f"-{letter}", False):
            is_last = number == len(typed)
            return [typed, *([queue.pop(0)] if is_last and queue else [])]
    return [typed]


def _hyphened(typed: str, known: Mapping[str, bool]) -> str:
    name, is_joined, value = typed.partition("=")
    hyphened = name.replace("_", "-")
    is_old = name.startswith("--") and name not in known and hyphened in known
    return hyphened + is_joined + value if is_old else typed
