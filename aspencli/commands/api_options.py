"""Options of the commands that use the API."""

from __future__ import annotations

from typing import Annotated

import typer

from aspencli import params
from aspencli.services.sample_fields import SampleKey

Group = Annotated[
    str | None,
    typer.Option(
        "--group",
        metavar="ID|NAME|PREFIX",
        help="The group whose data it is. Default: --org, else the only one that you have.",
        callback=params.checked("the group"),
    ),
]
GroupKey = Annotated[
    str | None,
    typer.Argument(
        metavar="[GROUP]",
        help="The group: id, name or prefix. Default: --org.",
        show_default=False,
        callback=params.checked("the group"),
    ),
]
OldGroupKey = Annotated[
    str | None,
    typer.Option("--group", "--group-id", hidden=True, callback=params.checked("the group")),
]
Pathogen = Annotated[
    str | None,
    typer.Option(
        "--pathogen",
        metavar="SLUG",
        help="The pathogen. Default: --pathogen-slug.",
        callback=params.checked("the pathogen"),
    ),
]
Identifiers = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="IDENTIFIER...",
        help="Public or private identifiers; - reads them from stdin.",
    ),
]
From = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="FILE",
        help="A file with one identifier a line, or a table with a column private_identifier or "
        "public_identifier; - for stdin.",
    ),
]
Keys = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY...",
        help="Ids, private or public identifiers; - reads them from stdin.",
    ),
]
KeysFrom = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="FILE",
        help="A file with one of them a line, or a table with a column id, private_identifier or "
        "public_identifier; - for stdin.",
    ),
]
By = Annotated[
    SampleKey | None,
    typer.Option(
        "--by",
        metavar="FIELD",
        help=f"What the keys are: {', '.join(SampleKey)}. Default: whichever matches.",
    ),
]
Repository = Annotated[
    str | None,
    typer.Option(
        "--repository",
        "--public-repository-name",
        metavar="NAME",
        help="Name the sequences as this public repository does: GISAID or GenBank.",
    ),
]
SkipMissing = Annotated[
    bool, typer.Option("--skip-missing", help="Go on without those that name no sample.")
]
Out = Annotated[
    str | None,
    typer.Option(
        "--out",
        "-O",
        metavar="FILE",
        help="Where to; - for stdout. Default: a new file here, or stdout where that is piped.",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")]
