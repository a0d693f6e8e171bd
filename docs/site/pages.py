"""The pages of the site: the files they are made of, their links, and the navigation.

The sources are written for GitHub. Here they get the folders of the site, and their links follow.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from docs.site.markdown import portable

ROOT = Path(__file__).parents[2]
CONTENTS = "docs/README.md"
"""The list of all pages, which is also the navigation."""
DECISIONS = "docs/adr/"
_COMMANDS = "docs/commands.md"
_OUTSIDE = {
    "README.md": "index.md",
    CONTENTS: "contents.md",
    DECISIONS: "adr/index.md",
    _COMMANDS: "commands/index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
_SECTION = re.compile(r"^## (.+)$")
_ENTRY = re.compile(r"^- \[([^\]]+)\]\(([^)#]+)\)")
_TITLE = re.compile(r"^# (.+)$", re.MULTILINE)
_FENCE = re.compile(r"^ *(```|~~~)")
_CODE = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)")
_LINK = re.compile(r"(?<=\]\()[^()\s]+(?=[)\s])|(?<=\bsrc=\")[^\"]+(?=\")")
_ELSEWHERE = re.compile(r"[a-z]+:|#")


class SiteError(Exception):
    """A mistake in the sources of the site, as a sentence that says where."""


def sources(root: Path = ROOT) -> dict[str, str]:
    """Return the place on the site of each page, by its path in the repository."""
    found = (path.relative_to(root).as_posix() for path in sorted((root / "docs").rglob("*.md")))
    return {**{path: path.removeprefix("docs/") for path in found}, **_OUTSIDE}


def staged(root: Path = ROOT) -> Iterator[tuple[str, str | Path]]:
    """Yield the place of each page with its text, and of each picture with its file."""
    places = sources(root)
    pictures: dict[str, Path] = {}
    for source, place in places.items():
        text = _decisions(root) if source == DECISIONS else (root / source).read_text("utf-8")

        def moved(link: str, source: str = source, place: str = place) -> str:
            target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link))
            file = root / target
            if file.suffix in {".png", ".svg"} and file.is_file():
                pictures[target.removeprefix("docs/")] = file
                return posixpath.relpath(target.removeprefix("docs/"), posixpath.dirname(place))
            found = places.get(target) or places.get(f"{target}/")
            if found is None:
                raise SiteError(f"{source} links to {link}, which is no page of the site.")
            return posixpath.relpath(found, posixpath.dirname(place))

        yield place, portable("".join(_relinked(text, moved)))
    yield from pictures.items()


def _relinked(text: str, moved: Any) -> Iterator[str]:
    """Yield the lines of a page with its links changed, but not those in code."""
    inside = False
    for line in text.splitlines(keepends=True):
        inside ^= bool(_FENCE.match(line))
        if inside:
            yield line
            continue
        codes = [found.span() for found in _CODE.finditer(line)]

        def again(found: re.Match[str], codes: list[tuple[int, int]] = codes) -> str:
            link, anchor = found[0].partition("#")[::2]
            if _ELSEWHERE.match(found[0]) or any(a < found.start() < b for a, b in codes):
                return found[0]
            return moved(link) + (f"#{anchor}" if anchor else "")

        yield _LINK.sub(again, line)


def _decisions(root: Path) -> str:
    """Return the page that lists the decisions."""
    pages = sorted((root / DECISIONS).glob("*.md"))
    lines = [f"- [{title_of(page.read_text('utf-8'))}]({page.name})" for page in pages]
    return "# Decisions\n\n" + "\n".join(lines) + "\n"


def title_of(text: str) -> str:
    """Return the title of a page."""
    found = _TITLE.search(text)
    return found[1] if found else ""


def sections(root: Path = ROOT) -> Mapping[str, list[tuple[str, str]]]:
    """Return the titles and sources of the pages in each section of the list of all pages."""
    found: dict[str, list[tuple[str, str]]] = {}
    for line in (root / CONTENTS).read_text("utf-8").splitlines():
        if section := _SECTION.match(line):
            pages = found.setdefault(section[1], [])
        elif entry := _ENTRY.match(line):
            target = posixpath.normpath(posixpath.join("docs", entry[2]))
            pages.append((entry[1], target + "/" * entry[2].endswith("/")))
    return found


def navigation(root: Path = ROOT) -> list[dict[str, Any]]:
    """Return the navigation of the site: the sections, with the parts of the longer pages."""
    places = sources(root)
    parts = {
        _COMMANDS: [path for path in places if path.startswith("docs/commands/")],
        DECISIONS: [path for path in places if path.startswith(DECISIONS) and path != DECISIONS],
    }

    def entry(title: str, source: str) -> dict[str, Any]:
        if source not in parts:
            return {title: places[source]}
        inner = [
            {title_of((root / part).read_text("utf-8")): places[part]} for part in parts[source]
        ]
        return {title: [places[source], *inner]}

    found: list[dict[str, Any]] = []
    for name, pages in sections(root).items():
        unknown = [source for _title, source in pages if source not in places]
        if unknown:
            raise SiteError(f"{CONTENTS} lists {unknown[0]}, which is no page of the site.")
        found.append({name: [entry(*page) for page in pages]})
    listed = {source for pages in sections(root).values() for _title, source in pages}
    listed |= {CONTENTS}.union(*parts.values())
    if missing := sorted(places.keys() - listed):
        raise SiteError(f"{CONTENTS} does not list {', '.join(missing)}.")
    return found
