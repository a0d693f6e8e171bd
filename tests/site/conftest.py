"""The site, built once for each process that tests it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from docs.site.build import build


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the built pages."""
    if find_spec("zensical") is None:
        pytest.skip("Zensical, which builds the site, is not installed: make site")
    return build(tmp_path_factory.mktemp("site"))
