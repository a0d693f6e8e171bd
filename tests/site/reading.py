"""The documentation as GitHub reads it, and the pages of the site as a browser does."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

from markdown_it import MarkdownIt

from docs.site.pages import DECISIONS, ROOT, sources

_GITHUB = MarkdownIt("commonmark").enable("table")
_STRUCTURE = frozenset(
    ("h1", "h2", "h3", "h4", "li", "pre", "td", "th", "ul", "ol", "table", "tr", "strong", "em")
)
_ARTICLE = re.compile(r'<a id="__skip"[^>]*></a>(.*?)</article>', re.DOTALL)
_ADDED = re.compile(
    r'<a class="headerlink".*?</a>|<span class="filename">.*?</span>|<nav .*?</nav>', re.DOTALL
)
_OMITTED = re.compile(r"[^\w\- ]")


def documents() -> Mapping[str, str]:
    """Return the text of each page of the documentation by its path in the repository."""
    return {path: (ROOT / path).read_text("utf-8") for path in sources() if path != DECISIONS}


def rendered(text: str) -> str:
    """Return a page as GitHub renders it, without what GitHub adds."""
    return str(_GITHUB.render(text))


@dataclass
class Document:
    """The links, pictures, and anchors of a page on GitHub."""

    links: list[str] = field(default_factory=list)
    pictures: dict[str, str] = field(default_factory=dict)
    anchors: set[str] = field(default_factory=set)
    code: list[str] = field(default_factory=list)


def document(text: str) -> Document:
    """Return what a page on GitHub consists of."""
    found = Document()
    tokens = _GITHUB.parse(text)
    for before, token in zip([None, *tokens], tokens, strict=False):
        if token.type in {"code_block", "fence"}:
            found.code.extend(token.content.replace("\\\n", " ").splitlines())
        for inner in token.children or ():
            if inner.type == "link_open":
                found.links.append(str(inner.attrs["href"]))
            elif inner.type == "image":
                found.pictures[str(inner.attrs["src"])] = inner.content
            elif inner.type == "code_inline":
                found.code.append(inner.content)
        if before and before.type == "heading_open":
            words = "".join(inner.content for inner in token.children or ())
            anchor, number = _OMITTED.sub("", words.lower()).replace(" ", "-"), 0
            while (name := f"{anchor}-{number}" if number else anchor) in found.anchors:
                number += 1
            found.anchors.add(name)
    return found


def article(page: str) -> str:
    """Return the content of a page of the site, without what the site adds to it."""
    found = _ARTICLE.search(page)
    assert found
    return _ADDED.sub("", found[1])


class Structure(HTMLParser):
    """The words of a page, with the elements that they are in."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag in _STRUCTURE:
            self._parts.append(f" <{tag}> ")

    def handle_data(self, data: str) -> None:
        self._parts.append(data)

    @classmethod
    def of(cls, html: str) -> list[str]:
        """Return the words and elements in their order."""
        parser = cls()
        parser.feed(html)
        return "".join(parser._parts).split()


class References(HTMLParser):
    """The links, loaded files, and anchors of a page of the site."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        if name := known.get("id"):
            self.anchors.add(name)
        if tag == "a" and (link := known.get("href")):
            self.links.append(link)
        for key in ("src", "srcset", "href"):
            if tag != "a" and (value := known.get(key)):
                self.loaded.append(value)

    @classmethod
    def of(cls, html: str) -> References:
        """Return the references of a page."""
        parser = cls()
        parser.feed(html)
        return parser


def pages(site: Path) -> Iterator[tuple[Path, str]]:
    """Yield the pages of the site."""
    for path in sorted(site.rglob("*.html")):
        yield path, path.read_text("utf-8")
