"""The scripts that shells load for completion."""

from __future__ import annotations

from pathlib import Path

from aspencli.errors import AspenError, BadInputError

PROGRAMS = ("aspencli", "aspen-cli")
SHELLS = ("bash", "zsh", "fish")

BASH = """\
# Completion of aspencli for bash. Made by: aspencli completion bash
_aspencli_completion() {
    local answer value
    COMPREPLY=()
    answer=$(_ASPENCLI_COMPLETE=values _ASPENCLI_SHELL=bash \\
        _ASPENCLI_LINE="${COMP_LINE:0:COMP_POINT}" _ASPENCLI_BREAKS="$COMP_WORDBREAKS" \\
        "$1" 2>/dev/null) || return 0
    if [[ $answer == files* ]]; then
        compopt -o default 2>/dev/null
        return 0
    fi
    [[ $answer == *$'\\n'* ]] || return 0
    while IFS= read -r value; do
        COMPREPLY+=("$value")
    done <<< "${answer#*$'\\n'}"
    compopt -o nosort 2>/dev/null
    return 0
}

complete -F _aspencli_completion aspencli aspen-cli
"""

# Typer's own script only defines its function when zsh first loads it, so that the first TAB in a
# new shell completes nothing. This one also calls it.
ZSH = """\
#compdef aspencli aspen-cli
# Completion of aspencli for zsh. Made by: aspencli completion zsh
_aspencli() {
    local -a lines items
    local line value
    lines=("${(@f)$(_ASPENCLI_COMPLETE=values _ASPENCLI_SHELL=zsh \\
        _ASPENCLI_WORDS="${(pj:\\n:)${(@Q)words[1,CURRENT-1]}}"$'\\n'"${(Q)PREFIX}" \\
        "${(Q)words[1]}" 2>/dev/null)}")
    if [[ $lines[1] == files ]]; then
        _files
        return
    fi
    shift lines
    for line in $lines; do
        value=${line%%$'\\t'*}
        value=${value//\\\\/\\\\\\\\}
        value=${value//:/\\\\:}
        if [[ $line == *$'\\t'* ]]; then
            items+=("$value:${line#*$'\\t'}")
        else
            items+=("$value")
        fi
    done
    (( $#items )) && _describe -V 'aspencli' items
}

if [[ $funcstack[1] == _aspencli ]]; then
    _aspencli "$@"
else
    compdef _aspencli aspencli aspen-cli
fi
"""

FISH = """\
# Completion of aspencli for fish. Made by: aspencli completion fish
function __aspencli_complete
    set -l words (commandline -opc) (commandline -ct)
    set -l answer (env _ASPENCLI_COMPLETE=values _ASPENCLI_SHELL=fish \\
        _ASPENCLI_WORDS=(string join \\n -- $words | string collect) $words[1] 2>/dev/null)
    if test "$answer[1]" = files
        __fish_complete_path (commandline -ct)
    else
        printf '%s\\n' $answer[2..-1]
    end
end

for program in aspencli aspen-cli
    complete --command $program --no-files --keep-order --arguments '(__aspencli_complete)'
end
"""

SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def use_own_scripts() -> None:
    """Make Typer show and install these scripts instead of its own."""
    from typer import _completion_shared

    escaped = {shell: script.replace("%", "%%") for shell, script in SCRIPTS.items()}
    _completion_shared._completion_scripts.update(escaped)  # noqa: SLF001 - there is no other way


def current_shell() -> str:
    """Return the shell that runs the program.

    Raises:
        BadInputError: It cannot be determined, or has no script here.
    """
    import shellingham  # type: ignore[import-untyped] # no type stubs

    try:
        shell: str = shellingham.detect_shell()[0]
    except shellingham.ShellDetectionFailure:
        shell = ""
    if shell not in SCRIPTS:
        raise BadInputError(
            f"No completion for {shell}." if shell else "Cannot determine your shell.",
            hint=f"Name one: {', '.join(SHELLS)}.",
        )
    return shell


def install(shell: str) -> Path:
    """Write the script where the shell finds it, and return its file; see Typer's ``install``."""
    from typer._completion_shared import install as install_script

    use_own_scripts()
    try:
        return install_script(shell, prog_name=PROGRAMS[0])[1]
    except OSError as error:
        raise AspenError(
            f"Cannot install completion: {error.filename}: {error.strerror}",
            hint=f"Add the script yourself: aspencli completion {shell}",
        ) from error


def installed_file(shell: str, home: Path) -> Path:
    """Return the file that Typer's ``--install-completion`` writes."""
    return {
        "bash": home / ".bash_completions" / "aspencli.sh",
        "zsh": home / ".zfunc" / "_aspencli",
        "fish": home / ".config" / "fish" / "completions" / "aspencli.fish",
    }[shell]
