"""Commands whose modules are imported only when one of them, or their list, is needed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from aspencli.cli.app import AspenTyper, _name_of, load_group
from aspencli.cli.main import ENTRIES

_GROUPS = {entry.name: entry.load() for entry in ENTRIES}
_IN_ORDER = """
import sys
from aspencli.cli.app import load_group
from aspencli.cli.main import ENTRIES
group = load_group(next(entry for entry in ENTRIES if entry.name == sys.argv[1]))
for name in sys.argv[2:]:
    assert group.get_command(None, name) is not None, name
print(*group.list_commands(None))
"""
_IMPORTED = """
import sys
from aspencli.cli.app import load_group
from aspencli.cli.main import ENTRIES
group = load_group(next(entry for entry in ENTRIES if entry.name == "samples"))
group.get_command(None, "update-public-ids")
print(*(name for name in sys.modules if name.startswith("aspencli.cli.commands.")))
"""


def _printed(program: str, *words: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, check=True
    )
    return done.stdout.split()


@pytest.mark.parametrize("group", _GROUPS)
def test_functions_register_the_commands_that_they_name(group: str) -> None:
    app = _GROUPS[group]
    assert isinstance(app, AspenTyper)
    app.register_later()
    for later in app._later:
        found = [*map(_name_of, later.commands or ()), *(str(one.name) for one in later.groups)]
        assert sorted(later.names or found) == sorted(found)


@pytest.mark.parametrize(
    ("group", "first"),
    [
        ("samples", "undo"),
        ("users", "roles"),
        ("users", "import"),
        ("db", "doctor"),
        ("db", "locks"),
    ],
)
def test_order_of_help_does_not_depend_on_what_was_needed_first(group: str, first: str) -> None:
    entry = next(entry for entry in ENTRIES if entry.name == group)
    assert _printed(_IN_ORDER, group, first) == load_group(entry).list_commands(None)  # type: ignore[arg-type] # no context is needed
    assert _printed(_IN_ORDER, group, first) == _printed(_IN_ORDER, group)


def test_command_imports_its_own_module_only() -> None:
    imported = {name.rpartition(".")[2] for name in _printed(_IMPORTED)}
    assert "bulk" in imported
    assert imported.isdisjoint({"samples_create", "samples_edit"})
