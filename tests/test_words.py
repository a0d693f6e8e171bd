"""The vocabulary of messages, help, documentation, docstrings, and comments."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("aspencli", "api", "db", "local", "migrations", "workflows")
BANNED = re.compile(
    r"""
    \b(?:anew|for\ ever|just\ so|made-up|there\ and\ back|(?<!`)nobody(?!`)|mend(?:ed|ing|s)?)\b
    |\b(?:already\ so|left\ alone|so\ many|lapse[sd]?|lapsing|straight\ in\ its|whom\ to\ invite)\b
    |\bgo(?:es)?\ on\ with\b|\btake(?:s|n)?\ it\ back\b|\bis\ told\b|\bdoes\ not\ tell\b
    |(?<!there\ )\bis\ no\ (?:value|e-mail|file|day|number|identifier|name|address|target|sample)\b
    """,
    re.IGNORECASE | re.VERBOSE,
)
_JOINT = re.compile(r"""["']\s*\n\s*[rfb]*["']""")
_OPENING = re.compile(r"\"\"\"\s*(?:What|Whether|Which|How|Who|That|Where|When)\b")
QUESTIONS = ("What", "Whether", "Which", "How", "Who", "That", "Where", "When")
# A key of results, which scripts read, and the name of an account.
CONTRACTS = re.compile(r"^(?:lapsed|nobody)$|^ +lapsed: ", re.MULTILINE)


def _strings_and_comments(path: Path) -> Iterator[tuple[int, str]]:
    source = path.read_text()
    # Parsing all files takes half a minute. A sentence may continue in the next literal.
    if not BANNED.search(_JOINT.sub("", source)):
        return
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def _texts() -> Iterator[tuple[Path, int, str]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield from ((path, *found) for found in _strings_and_comments(path))
        for suffix in ("html", "sql", "toml", "js"):
            for path in sorted((ROOT / package).rglob(f"*.{suffix}")):
                yield from ((path, *found) for found in enumerate(path.read_text().splitlines(), 1))
    documents = [
        ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "Makefile")
    ]
    for path in (*documents, *sorted((ROOT / "docs").rglob("*.md"))):
        yield from ((path, *found) for found in enumerate(path.read_text().splitlines(), 1))


def test_no_text_uses_a_banned_phrase() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {match[0]}"
        for path, line, text in _texts()
        if not CONTRACTS.search(text)
        for match in BANNED.finditer(text)
    ]
    assert found == []


def test_no_docstring_opens_with_a_question_word() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {doc.splitlines()[0]}"
        for package in (*PACKAGES, "tests", "benchmarks", "docs")
        for path in sorted((ROOT / package).rglob("*.py"))
        if _OPENING.search(source := path.read_text())
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module)
        and (doc := ast.get_docstring(node))
        and doc.split()[0] in QUESTIONS
    ]
    assert found == []
