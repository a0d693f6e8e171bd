"""Every command, with arguments that only read, or that plan without writing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aspencli.cli.app import load_group
from aspencli.cli.main import ENTRIES

# Starting or stopping the deployment would end the one that the others use, and changed settings
# would be those of the others.
LEFT_OUT = frozenset(
    {"local down", "local init", "auth login", "db revision", "config set", "config unset"}
)
# One of each kind: database, API, both, a bulk write, psql, console, profiler, schema, files.
FEW = frozenset(
    {
        *("samples list", "samples update", "samples update-public-ids", "samples download"),
        *("users import", "groups members", "locations list", "history list", "db interact"),
        *("db psql", "db profile", "db upgrade", "db status", "db doctor", "db drop"),
        *("local status", "auth status", "config show"),
    }
)
_LINES: dict[str, str] = {
    "samples show": "RCPHL-0000001",
    "samples get": "RCPHL-0000001",
    "samples create": "--fasta {fasta} --metadata {samples} --group 1 --dry-run",
    "samples update": "RCPHL-0000001 --private --group 1 --dry-run",
    "samples delete": "RCPHL-0000001 --group 1 --dry-run",
    "samples download": "RCPHL-0000001 --group 1 --out {out}",
    "samples validate-ids": "RCPHL-0000001 --group 1",
    "samples submission-template": "RCPHL-0000001 --repository GISAID --group 1 --out {out}",
    "samples update-public-ids": "-f {mapping} --group-id 1 --dry-run",
    "samples bulk-update": "--from {mapping} --group-id 1 --dry-run",
    "samples undo": "20240101-000000-0000 --dry-run",
    "samples resume": "20240101-000000-0000",
    "users show": "member@example.org",
    "users create": "--name X --email x@example.org --auth0-user-id x --group 1 --dry-run",
    "users onboard": "x@example.org --name X --group 1 --dry-run",
    "users offboard": "member@example.org --dry-run",
    "users update": "member@example.org --name X --dry-run",
    "users roles list": "member@example.org",
    "users roles add": "member@example.org --group 2 --role viewer --dry-run",
    "users roles remove": "member@example.org --group 1 --dry-run",
    "users delete": "nogroup@example.org --dry-run",
    "users update-me": "--name X --dry-run",
    "users import": "{users} --dry-run",
    "users undo": "20240101-000000-0000 --dry-run",
    "groups show": "1",
    "groups get": "1",
    "groups members": "1",
    "groups create": "--name Some --prefix SOME --default-tree-location 1 --dry-run",
    "groups onboard": "--name Some --prefix SOME --default-tree-location 1 --admin x@example.org "
    "--admin-name X --dry-run",
    "groups update": "1 --name Some --dry-run",
    "groups archive": "1 --dry-run",
    "groups delete": "1 --dry-run",
    "groups invites": "1",
    "groups invite": "x@example.org --group 1 --dry-run",
    "groups import": "{groups} --dry-run",
    "groups undo": "20240101-000000-0000 --dry-run",
    "phylo-runs list": "--group 1",
    "phylo-runs create": "--name x --tree-type OVERVIEW RCPHL-0000001 --group 1 --dry-run",
    "phylo-runs update": "1 --name x --group 1 --dry-run",
    "phylo-runs rename": "1 --name x --group 1 --dry-run",
    "phylo-runs delete": "1 --group 1 --dry-run",
    "phylo-trees download": "1 --group 1 --out {out}",
    "phylo-trees open": "1 --group 1 --print-url --for 0s",
    "phylo-trees selected-samples": "1 --group 1 --out {out}",
    "jobs show": "1",
    "jobs why": "1",
    "jobs logs": "1",
    "jobs outputs": "1",
    "jobs start": "qc --pathogen SC2 --stale --dry-run",
    "jobs cancel": "1 --dry-run",
    "jobs retry": "1 --dry-run",
    "jobs reconcile": "--dry-run",
    "jobs undo": "20240101-000000-0000 --dry-run",
    "qc-mutations download": "RCPHL-0000001 --group 1 --out {out}",
    "usher get-link": "RCPHL-0000001 --group 1",
    "locations search": "--country USA",
    "auspice link": "1 --group 1",
    "files show": "phylo_runs/1/tree.json",
    "files download": "phylo_runs/1/tree.json --out {out}",
    "history show": "20240101-000000-0000",
    "history check": "20240101-000000-0000",
    "identity sync": "--source db --dry-run",
    "auth switch": "x",
    "db interact": "-c session.scalar(sa.text('select+1'))",
    "db psql": "-c select+1",
    "db profile": "--sql select+1",
    "db upgrade": "--dry-run",
    "db downgrade": "base --dry-run",
    "db setup": "--dry-run",
    "db create": "--dry-run",
    "db drop": "--dry-run",
    "db dump": "{out}-dump --dry-run",
    "db restore": "{out}-dump --dry-run",
    "db copy": "--from local --to staging --dry-run",
    "db dumps verify": "{out}-dump",
    "db tunnel": "-- true",
    "db access ensure-readonly": "--dry-run",
    "history prune": "--dry-run",
    "db cancel": "1 --dry-run",
    "db terminate": "1 --dry-run",
    "local reset": "--dry-run",
    "local logs": "--lines 1",
    "config get": "env",
    "completion": "bash",
    "local seed": "--no-input",
}
_FILES = {
    "mapping": "private_identifier,public_identifier\nRCPHL-0000001,hCoV-19/USA/CA-SET-1/2020\n",
    "users": "email,name,auth0_user_id,group,role\nx@example.org,X,auth0|x,1,member\n",
    "groups": "name,prefix,default_tree_location\nSome,SOME,1\n",
    "samples": "private_identifier,collection_date,location\nSET-1,2024-01-01,1\n",
    "fasta": ">SET-1\n" + "ACGT" * 300 + "\n",
}


def command_lines(folder: Path) -> dict[str, list[str]]:
    """Return each command's words, by its name.

    Args:
        folder: The folder for the files that commands read.
    """
    places = {"out": str(folder / "out")}
    for name, text in _FILES.items():
        path = folder / f"{name}.csv"
        path.write_text(text)
        places[name] = str(path)
    lines = {}
    for name in _names():
        words = _LINES.get(name, "").split()
        lines[name] = [*name.split(), *(w.format(**places).replace("+", " ") for w in words)]
    return lines


def _names() -> Iterator[str]:
    yield from ("completion", "doctor", "mcp", "schema")
    for entry in ENTRIES:
        yield from _below(load_group(entry), entry.name)


def _below(command: Any, path: str) -> Iterator[str]:
    if not hasattr(command, "commands"):
        if path not in LEFT_OUT:
            yield path
        return
    for name, child in command.commands.items():
        yield from _below(child, f"{path} {name}")
