"""Showing a tree in a browser: the copy of Auspice, the tree, and the server between them."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from aspencli import files
from aspencli.auth.session import has_browser, open_browser
from aspencli.cli.output.formats import LINK_COLUMNS
from aspencli.errors import AspenError, BadInputError, NotFoundError
from aspencli.phylo import auspice
from aspencli.phylo.auspice import Auspice
from aspencli.phylo.remote import with_scheme
from aspencli.remote.downloads import MemoryLanding
from aspencli.text import duration_text, size_text

if TYPE_CHECKING:
    from aspencli.cli.context import AppContext
    from aspencli.reference.remote import Scope

LINK_WARNING = (
    "Anyone with this link can view the tree for a week. On the live service as last published, "
    "they can also do everything there that you can."
)
_NEXTSTRAIN = "https://nextstrain.org/fetch/"
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def find_auspice(context: AppContext, given: str | None) -> Auspice | None:
    """Return a copy of Auspice, fetched if the operator agrees; None if there is none.

    Args:
        context: The context of the run.
        given: The operator's own copy, or None for the one in the cache.

    Raises:
        BadInputError: The operator's own copy is not one.
    """
    if given is not None:
        return auspice.given(files.expand(given))
    if (found := auspice.cached()) is not None:
        return found
    if (program := auspice.npm()) is None:
        context.out.warn("Auspice, which shows trees, is not on this machine, and neither is npm.")
        return None
    return _fetch(context, program) if _agrees(context) else None


def _agrees(context: AppContext) -> bool:
    """Return True if the operator lets the program fetch Auspice."""
    out = context.out
    what = f"Auspice {auspice.VERSION} ({size_text(auspice.SIZE)}, license AGPL-3.0)"
    if context.options["yes"]:
        out.info(f"Fetching {what} with npm.")
        return True
    if not out.interactive:
        out.warn(f"{what}, which shows trees, is not on this machine. Pass --yes to fetch it.")
        return False
    return out.confirm(f"{what} shows trees. Fetch it with npm into {files.cache_dir()}?")


def _fetch(context: AppContext, program: str) -> Auspice | None:
    try:
        with context.out.progress("Fetching Auspice"):
            found = auspice.fetch(program)
    except (AspenError, OSError) as error:
        message = error.message if isinstance(error, AspenError) else f"Cannot keep it: {error}"
        context.out.warn(message)
        return None
    context.out.done(f"Saved {found.origin}.")
    return found


def create_link(context: AppContext, scope: Scope, tree: int) -> str:
    """Return a magic link to a tree.

    Raises:
        NotFoundError: There is no such tree, or the operator may not see it.
    """
    try:
        return context.api().phylo_trees.auspice_link(*scope.key, tree)
    except NotFoundError as error:
        raise NotFoundError(
            f"No such tree in {scope}: {tree}, or you do not have access to it.",
            hint="List the runs with the ids of their trees: aspencli phylo-runs list",
        ) from error


def read_tree(context: AppContext, link: str, tree: int) -> bytes:
    """Return the tree of a magic link, as the link's creator sees it.

    The path is requested from the API that created the link, whatever host the link names.

    Raises:
        NotFoundError: The tree's file does not exist.
        AspenError: The API refuses it, or does not answer.
    """
    from aspencli.phylo.viewer import check_dataset

    landing = MemoryLanding()
    with context.out.transfer("Loading the tree") as progress:
        base = urlsplit(context.access.at.api_url).path.rstrip("/")
        path = urlsplit(with_scheme(link, "https")).path.removeprefix(base)
        with _explaining_loss(context, tree):
            context.api().phylo_trees.open_link(path, landing, progress)
    check_dataset(landing.content)
    return landing.content


@contextmanager
def _explaining_loss(context: AppContext, tree: int) -> Iterator[None]:
    """Explain why the tree of a link cannot be loaded."""
    try:
        yield
    except NotFoundError as error:
        raise NotFoundError(
            f"The file of tree {tree} no longer exists.",
            hint=f"Find all such trees: {context.command('files', 'check', '--kind', 'tree')}",
            details=error.details,
        ) from error
    except BadInputError as error:
        error.hint = "The link may have expired: run the command again. Check the clocks, too."
        raise


def show_elsewhere(context: AppContext, link: str) -> None:
    """Print the address that shows the tree at nextstrain.org, and how to show it here."""
    out = context.out
    url = with_scheme(link, context.access.at.api_url)
    fetch = f"run {_again(context)} --yes"
    if auspice.npm() is None:
        fetch = f"install Node.js, which has npm (https://nodejs.org), then {fetch}"
    out.info(f"To show trees on this machine, {fetch}.")
    out.info(
        f"Without a network: run npm pack {auspice.PACKAGE} elsewhere, copy "
        f"{auspice.PACKAGE_FILE} to this machine, and add --auspice {auspice.PACKAGE_FILE}."
    )
    out.warn(LINK_WARNING)
    if urlsplit(url).hostname in _LOOPBACK:
        out.warn("nextstrain.org cannot reach an API on this machine, so this link will not work.")
    out.rows(LINK_COLUMNS, [{"url": _NEXTSTRAIN + url.partition("://")[2]}])


def _again(context: AppContext) -> str:
    return context.command("phylo-trees", "open", "TREE")


def show(
    context: AppContext,
    scope: Scope,
    tree: int,
    *,
    copy: str | None,
    browser: bool,
    period: dt.timedelta | None,
) -> None:
    """Show a tree until Ctrl-C, or for a period.

    Args:
        context: The context of the run.
        scope: The group and pathogen.
        tree: The tree's ID.
        copy: The operator's own copy of Auspice, or None.
        browser: True to open the system's browser.
        period: The time after which it ends, or None.

    Raises:
        AspenError: The tree cannot be read.
    """
    from aspencli.phylo.viewer import HOST, Viewer, serving

    link = create_link(context, scope, tree)
    pages = find_auspice(context, copy)
    if pages is None:
        return show_elsewhere(context, link)
    viewer = Viewer(pages, read_tree(context, link, tree), f"tree-{tree}")
    with serving(viewer):
        is_opened = browser and has_browser() and open_browser(viewer.first_url)
        end = "until Ctrl-C" if period is None else _until(period)
        context.out.info(
            f"Tree {tree} is open on {HOST}, port {viewer.port}, {end}. Only who has its address "
            "can see it."
        )
        if is_opened:
            context.out.info("The page should open in your browser automatically.")
        context.out.rows(LINK_COLUMNS, [{"url": viewer.url}])
        with suppress(KeyboardInterrupt):
            threading.Event().wait(None if period is None else period.total_seconds())
    return context.out.info("Closed.")


def _until(period: dt.timedelta) -> str:
    return f"for {duration_text(period.total_seconds())} or until Ctrl-C"
