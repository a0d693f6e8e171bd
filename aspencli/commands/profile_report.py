"""The report of ``db profile``, and the files it is written to."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aspencli import files
from aspencli.context import AppContext
from aspencli.errors import AspenError, BadInputError
from aspencli.targets import Safety

if TYPE_CHECKING:
    from aspencli.services.profiling import Bench
    from db.profiling.budgets import Limit
    from db.profiling.summary import Profile


_PLANS = 5


@dataclass(frozen=True)
class Wanted:
    """The options of a report.

    Attributes:
        top: Maximum number of statements.
        min_ms: Minimum total time of a statement.
        parameters: Whether to show the parameters of the slowest execution.
        plans: Whether to show plans.
        analyze: Whether to run SELECTs again for the plans, even on production.
        before: Earlier profile to compare with.
        page: File for the HTML page.
        limits: Limits to enforce.
        interrupted: Whether the work was interrupted.
    """

    top: int
    min_ms: float
    parameters: bool
    plans: bool
    analyze: bool
    before: dict[str, Any] | None
    page: Path | None
    limits: list[Limit]
    interrupted: bool = False

    def after_interrupt(self) -> Wanted:
        """Return the options for interrupted work: nothing is rerun, and no limit is enforced."""
        return replace(self, plans=False, limits=[], interrupted=True)


def limits_of(text: str | None) -> list[Limit]:
    """Return the limits of a budget.

    Raises:
        BadInputError: If the budget cannot be parsed.
    """
    if text is None:
        return []
    from db.profiling.budgets import parse_budget

    try:
        return parse_budget(text)
    except ValueError as error:
        raise BadInputError(f"--budget: {error}") from error


def earlier(path: Path | None) -> dict[str, Any] | None:
    """Return the profile to compare with, read before anything runs.

    Raises:
        BadInputError: If the file is not a profile.
    """
    if path is None:
        return None
    from aspencli.services.profiling import read_file
    from db.profiling.documents import compare

    try:
        found = json.loads(read_file(path))
    except json.JSONDecodeError as error:
        raise BadInputError(f"{path} is no JSON: {error}") from error
    try:
        if not isinstance(found, dict):
            raise TypeError("no object")
        compare(found, found)
    except (ValueError, KeyError, TypeError) as error:
        raise BadInputError(
            f"--compare: {path} is no profile: {error}", hint="Make one with --output json."
        ) from error
    return found


def page_file(path: Path | None) -> Path | None:
    """Return the path of the HTML page, checked before anything runs.

    Raises:
        BadInputError: If no file can be written there.
    """
    if path is not None and (path.is_dir() or not path.parent.is_dir()):
        what = "is a folder" if path.is_dir() else "is in no folder that exists"
        raise BadInputError(f"--html: {path} {what}", hint="Name a file in an existing folder.")
    return path


def tell(context: AppContext, bench: Bench, what: str, wanted: Wanted) -> None:
    """Report what was recorded: print it first, then write the HTML page.

    Args:
        context: Application context.
        bench: Recording.
        what: Description of what was run.
        wanted: Options of the report.

    Raises:
        AspenError: If the page cannot be written, or a limit is exceeded.
    """
    from db.profiling.documents import as_document

    found = _summary(bench)
    if wanted.plans:
        _explain(context, found, wanted)
    document = as_document(found, what, parameters=wanted.parameters)
    document["interrupted"] = wanted.interrupted
    _show(context, found, document, wanted)
    if wanted.page is not None:
        _write_page(context, found, document, wanted.page)
    _check(wanted.limits, found)


def _summary(bench: Bench) -> Profile:
    from db.profiling.summary import summarise

    if bench.recorder is None:
        raise AspenError("nothing was run")
    return summarise(bench.recorder)


def _explain(context: AppContext, found: Profile, wanted: Wanted) -> None:
    from db.profiling.plans import explain_slowest

    analyze = wanted.analyze or context.target.safety is not Safety.PRODUCTION
    count = min(wanted.top, _PLANS)
    for one, why in explain_slowest(found, context.database(), count=count, analyze=analyze):
        context.out.warn(f"no plan of {one.key.fingerprint[:60]}: {why}")


def _show(context: AppContext, found: Profile, document: dict[str, Any], wanted: Wanted) -> None:
    from aspencli.commands.profile_views import show, show_changes
    from db.profiling.documents import compare

    out = context.out
    if wanted.before is not None:
        if wanted.interrupted or wanted.before.get("interrupted"):
            which = "this run" if wanted.interrupted else "the earlier run"
            out.warn(f"{which} was interrupted: not all that it would ask is compared")
        return show_changes(out, compare(wanted.before, document))
    if out.chosen_form in {"json", "jsonl"}:
        indent = 2 if out.chosen_form == "json" else None
        return out.text(json.dumps(document, indent=indent, ensure_ascii=False))
    chosen = [one for one in found.statements if one.total_ms + one.fetch_ms >= wanted.min_ms]
    return show(out, found, chosen[: wanted.top], parameters=wanted.parameters)


def _write_page(context: AppContext, found: Profile, document: dict[str, Any], path: Path) -> None:
    from db.profiling.page import as_page

    try:
        files.write_whole(path, as_page(found, document))
    except OSError as error:
        raise AspenError(f"the page cannot be written to {path}: {error.strerror}") from error
    context.out.info(f"the page is in {path}")


def _check(limits: list[Limit], found: Profile) -> None:
    from db.profiling.budgets import broken

    if problems := broken(limits, found):
        raise AspenError("the budget is broken: " + "; ".join(problems))
