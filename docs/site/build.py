"""Builds the site: pages from the sources, then HTML with Zensical."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from docs.site.pages import ROOT, SiteError, navigation, staged

_SETTINGS = Path(__file__).with_name("zensical.toml")
_THEME = Path(__file__).with_name("theme")


def build(folder: Path, root: Path = ROOT) -> Path:
    """Build the site in a folder, and return the folder of its pages.

    Args:
        folder: The folder; what an earlier build left in it is replaced.
        root: The folder of the repository.

    Raises:
        SiteError: A page or a link is missing, or Zensical reported a problem.
    """
    pages, site = folder / "pages", folder / "site"
    for path in (pages, site, folder / ".cache"):
        shutil.rmtree(path, ignore_errors=True)
    for place, content in staged(root):
        target = pages / place
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            shutil.copyfile(content, target)
        else:
            target.write_text(content, encoding="utf-8")
    settings = tomllib.loads(_SETTINGS.read_text("utf-8"))["project"]
    settings |= {"docs_dir": "pages", "site_dir": "site", "nav": navigation(root)}
    settings["theme"]["custom_dir"] = str(_THEME)
    file = folder / "zensical.toml"
    file.write_text("[project]\n" + _toml(settings), encoding="utf-8")
    words = [sys.executable, "-m", "zensical", "build", "--strict", "--config-file", str(file)]
    run = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603 - our own
    if run.returncode:
        raise SiteError(f"Zensical could not build the site.\n{run.stdout}{run.stderr}")
    for name in ("404.html", "sitemap.xml"):  # only a web server has a use for them
        (site / name).unlink(missing_ok=True)
    return site


def _toml(settings: Mapping[str, Any]) -> str:
    """Return settings as TOML; what is nested becomes inline tables."""
    return "".join(f"{_value(key)} = {_value(value)}\n" for key, value in settings.items())


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_value(k)} = {_value(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def main() -> int:
    """Build the site in the folder ``build``."""
    try:
        site = build(ROOT / "build")
    except SiteError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"Open {site.relative_to(ROOT) / 'index.html'} in a browser.\n")
    return 0
