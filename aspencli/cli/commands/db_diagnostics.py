"""``aspencli db activity``, ``bloat`` and so on: a command for each of `aspencli.diagnostics`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import StrEnum
from inspect import Parameter, Signature
from types import GenericAlias
from typing import Annotated, Any

import typer

from aspencli.cli.app import examples
from aspencli.cli.context import AppContext, current
from aspencli.cli.output.diagnostics import show_report
from aspencli.cli.params import AllOption, LimitOption, chosen_limit
from aspencli.diagnostics import LIMIT, Diagnostic, Option, diagnostics

_SHORT = 20  # rows of a table by default


def register(app: typer.Typer, panel: str) -> None:
    """Add the commands of a panel to their group."""
    for name, diagnostic in diagnostics().items():
        if diagnostic.panel == panel:
            app.command(name, rich_help_panel=panel, epilog=examples(*diagnostic.examples))(
                _command(diagnostic)
            )


def _command(diagnostic: Diagnostic) -> Callable[..., None]:
    def command(ctx: typer.Context, **given: Any) -> None:
        from aspencli.diagnostics.session import looking

        context = current(ctx)
        if LIMIT in diagnostic.options:
            given["limit"] = _limit(context, given["limit"], given.pop("everything"))
        with (diagnostic.opens or looking)(context.database()) as session:
            report = diagnostic.report(session, **given)
        show_report(context.out, diagnostic.columns, report)

    parameters = [_parameter("ctx", typer.Context, Parameter.empty)]
    for option in diagnostic.options:
        parameters += _parameters(option)
    # Typer reads the parameters from these.
    vars(command)["__signature__"] = Signature(parameters)
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    command.__doc__ = diagnostic.report.__doc__
    return command


def _parameters(option: Option) -> Iterator[Parameter]:
    if option is LIMIT:
        yield _parameter("limit", LimitOption, None)
        yield _parameter("everything", AllOption, False)
        return
    # Typer takes lists of enums, but not of literals.
    kind: Any = (
        StrEnum("Choice", {each: each for each in option.choices}) if option.choices else str
    )
    default: Any = None
    if option.several:
        kind = GenericAlias(list, kind) | None
    elif option.choices:
        default = option.choices[0]
    else:
        kind, default = bool, False
    given: Any = typer.Option(option.name, help=option.help)
    if option.name.startswith("["):
        given = typer.Argument(metavar=option.name, help=option.help)
    yield _parameter(option.parameter, Annotated[kind, given], default)


def _parameter(name: str, annotation: Any, default: Any) -> Parameter:
    return Parameter(name, Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


def _limit(context: AppContext, limit: int | None, everything: bool) -> int | None:
    if limit is None and not everything and context.out.chosen_form == "table":
        return _SHORT
    return chosen_limit(context.out, limit, everything)
