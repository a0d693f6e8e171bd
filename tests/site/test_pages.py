"""The navigation and the links of the site, made from the documentation."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs.site.build import build
from docs.site.markdown import portable
from docs.site.pages import SiteError, navigation, sections, staged
from tests.site.reading import Structure, rendered

README = "# Tool\n\nSee [all pages](docs/README.md) and [decisions](docs/adr/).\n"
CONTENTS = """\
# Documentation

## Get started

- [Overview](../README.md)
- [A guide](guides/one.md): explained
- [Commands](commands.md)
- [Changes](../CHANGELOG.md)
- [Contributing](../CONTRIBUTING.md)
- [Security](../SECURITY.md)
- [Decisions](adr/)
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Return a repository with few pages."""
    files = {
        "README.md": README,
        "CHANGELOG.md": "# Changes\n",
        "CONTRIBUTING.md": "# Contributing\n",
        "SECURITY.md": "# Security\n",
        "docs/README.md": CONTENTS,
        "docs/commands.md": "# Commands\n",
        "docs/commands/db.md": "# tool db\n",
        "docs/guides/one.md": "# One\n\n[That](two.svg) and [the tool](../../README.md#tool).\n",
        "docs/guides/two.svg": "<svg/>",
        "docs/adr/0001-a-choice.md": "# 1. A choice\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_navigation_has_sections_and_parts(repository: Path) -> None:
    assert navigation(repository) == [
        {
            "Get started": [
                {"Overview": "index.md"},
                {"A guide": "guides/one.md"},
                {"Commands": ["commands/index.md", {"tool db": "commands/db.md"}]},
                {"Changes": "changelog.md"},
                {"Contributing": "contributing.md"},
                {"Security": "security.md"},
                {
                    "Decisions": [
                        "adr/index.md",
                        {"1. A choice": "adr/0001-a-choice.md"},
                    ]
                },
            ]
        }
    ]


def test_guide_that_the_navigation_lacks_is_named(repository: Path) -> None:
    (repository / "docs/guides/new.md").write_text("# New\n")
    with pytest.raises(SiteError, match=r"docs/README\.md does not list docs/guides/new\.md\."):
        navigation(repository)


def test_listed_page_that_does_not_exist_is_named(repository: Path) -> None:
    (repository / "docs/guides/one.md").unlink()
    with pytest.raises(SiteError, match=r"lists docs/guides/one\.md, which is no page"):
        navigation(repository)


def test_links_follow_pages_to_their_places(repository: Path) -> None:
    pages = dict(staged(repository))
    assert "(contents.md)" in str(pages["index.md"])
    assert "(adr/index.md)" in str(pages["index.md"])
    assert "(../index.md#tool)" in str(pages["guides/one.md"])
    assert pages["guides/two.svg"] == repository / "docs/guides/two.svg"
    assert "- [1. A choice](0001-a-choice.md)" in str(pages["adr/index.md"])


@pytest.mark.parametrize("code", ["`[text](none.md)`", "```\n[text](none.md)\n```"])
def test_links_in_code_stay_as_they_are(repository: Path, code: str) -> None:
    (repository / "docs/guides/one.md").write_text(f"# One\n\n{code}\n")
    assert "[text](none.md)" in str(dict(staged(repository))["guides/one.md"])


def test_link_to_a_missing_page_is_named(repository: Path) -> None:
    (repository / "docs/guides/one.md").write_text("# One\n\n[Two](two.md)\n")
    with pytest.raises(SiteError, match=r"docs/guides/one\.md links to two\.md, which is no page"):
        list(staged(repository))


def test_link_to_a_missing_heading_fails_the_build(repository: Path, tmp_path: Path) -> None:
    pytest.importorskip("zensical", reason="Zensical is not installed")
    (repository / "docs/guides/one.md").write_text("# One\n\n[Two](../../README.md#nothing)\n")
    with pytest.raises(SiteError, match="anchor"):
        build(tmp_path / "build", repository)


def test_navigation_of_this_repository_is_complete() -> None:
    navigation()
    assert next(iter(sections())) == "Get started"


@pytest.mark.parametrize(
    "text",
    [
        "1. One:\n\n       $ aspencli\n       out\n\n   more\n2. Two\n",
        "- a\n  - b\n    - c\n- d\n",
        "words:\n- a\n- b\n",
        "| a | b |\n|---|---|\n| `x\\|y` | z |\n",
        "- a\n\n  b\n- c\n",
        "10. ten\n\n    ```sh\n    make x\n    ```\n",
    ],
)
def test_portable_text_has_the_structure_that_github_shows(text: str) -> None:
    markdown = pytest.importorskip("markdown", reason="Zensical is not installed")
    extensions = ["sane_lists", "tables", "pymdownx.superfences"]
    found = markdown.markdown(portable(text), extensions=extensions)
    assert Structure.of(found) == Structure.of(rendered(text))
