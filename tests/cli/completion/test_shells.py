"""Completion in real shells, with the scripts that the program installs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import pytest

from aspencli.cli.completion.scripts import SCRIPTS
from aspencli.cli.completion.values import store

SHELLS = {  # program, settings in the home directory, and the line with its prompt
    "bash": ("bash", ".bashrc", "PS1='ready> '"),
    "zsh": ("zsh", ".zshrc", "PROMPT='ready> '"),
    "fish": ("fish", ".config/fish/config.fish", "function fish_prompt; echo 'ready> '; end"),
}
_CODES = re.compile(r"\x1b(\[[0-9;?<>=]*[a-zA-Z]|\][^\x07\x1b]*(\x07|\x1b\\)|[=>()][0-9A-Za-z]?)")
Start = Callable[[str], pexpect.spawn]


@pytest.fixture
def home(
    tmp_path: Path,
    aspen_home: Path,  # moves the cache
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """Return a home directory with names in the cache, and no settings of any shell."""
    home = tmp_path / "home"
    home.mkdir()
    programs = str(Path(sys.executable).parent)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    for name in ("ZDOTDIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "PROMPT_COMMAND"):
        monkeypatch.delenv(name, raising=False)
    names = {
        "groups": [("LAKE", "Lake County"), ("RCPHL", "Rivendell")],
        "users": [("ada@lab.example.org", "Ada"), ("bob@lab.example.org", "Bob")],
        "samples": [("LAB 17 $x", "private identifier"), ("hCoV-19/USA/A:1", "")],
    }
    for kind, found in names.items():
        store("local", kind, found, is_production=False)
    return home


@pytest.fixture
def start(home: Path) -> Iterator[Start]:
    """Return a function that installs completion and starts a new shell."""
    children = []

    def begin(shell: str) -> pexpect.spawn:
        if shutil.which(shell) is None:
            pytest.skip(f"{shell} is not installed")
        command = ["aspencli", "completion", shell, "--install"]
        subprocess.run(command, check=True, capture_output=True, cwd=home)
        program, settings, prompt = SHELLS[shell]
        (home / settings).parent.mkdir(parents=True, exist_ok=True)
        with (home / settings).open("a") as file:
            file.write(f"\n{prompt}\n")
        child = pexpect.spawn(
            program,
            ["-i"],
            env={**os.environ, "TERM": "xterm"},
            encoding="utf-8",
            timeout=20,
            dimensions=(40, 200),
        )
        children.append(child)
        child.expect_exact("ready> ")
        return child

    yield begin
    for child in children:
        child.close(force=True)


def completed(child: pexpect.spawn, typed: str) -> str:
    """Return the line that one press of TAB makes of what was typed, as the shell echoes it."""
    child.send(typed + "\t")
    # The start of the line is replaced, so that the shell prints the words instead.
    child.send("\x01printf '<%s>' \x05 END")
    child.expect_exact("END")
    child.send("\r")
    child.expect(r"<END>")
    shown = _CODES.sub("", child.before)
    child.expect_exact("ready> ")
    found = re.findall(r"<([^>]*)>", shown)
    return " | ".join(word for word in found if word != "%s")


@pytest.mark.parametrize("shell", SHELLS)
def test_first_tab_in_new_shell_completes_command(start: Start, shell: str) -> None:
    child = start(shell)
    assert completed(child, "aspencli samples li") == "aspencli | samples | list"


@pytest.mark.parametrize("shell", SHELLS)
def test_names_are_completed_and_quoted(start: Start, shell: str) -> None:
    child = start(shell)
    ends = {
        "aspencli samples list --group LA": "LAKE",
        "aspencli users show ada@l": "ada@lab.example.org",
        "aspencli samples show LAB": "LAB 17 $x",
        "aspencli samples show hCoV": "hCoV-19/USA/A:1",
        "aspencli --env=sta": "--env=staging",
        "aspencli --env pro": "prod",
    }
    for typed, last in ends.items():
        assert completed(child, typed).rpartition(" | ")[2] == last


@pytest.mark.parametrize("shell", SHELLS)
def test_files_are_completed_where_a_file_is_wanted(
    start: Start, shell: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "mapping-of-ids.csv").write_text("x")
    monkeypatch.chdir(home)
    child = start(shell)
    typed = "aspencli samples update-public-ids --group-id 1 -f mapp"
    assert completed(child, typed).endswith("mapping-of-ids.csv")


def test_older_options_use_the_same_script(home: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", "aspencli --show-completion; true"],
        capture_output=True,
        text=True,
        check=True,
        cwd=home,
    )
    assert done.stdout.strip() == SCRIPTS["bash"].strip()


def test_zsh_script_can_be_sourced(home: Path) -> None:
    if shutil.which("zsh") is None:
        pytest.skip("zsh is not installed")
    lines = 'autoload -Uz compinit; compinit -u; eval "$(aspencli completion zsh)"; '
    done = subprocess.run(
        ["zsh", "-f", "-c", lines + "print $_comps[aspencli]"],
        capture_output=True,
        text=True,
        check=False,
        cwd=home,
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "_aspencli", "")
