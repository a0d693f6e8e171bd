"""The entry point. It shows the version without importing anything else."""

import errno
import gc
import os
import sys
from itertools import pairwise

from aspencli import __version__


def main() -> None:
    """Run the command line and end the process with its exit code."""
    _open_closed_streams()
    if sys.argv[1:] in (["--version"], ["-V"], ["version"]):
        sys.exit(_print_version())
    if _serves_completion():
        return
    # Startup objects live until exit; collecting among them takes a tenth of the startup time.
    gc.set_threshold(100_000, 50, 50)
    try:
        from aspencli.signals import deliver_lost_interrupts

        deliver_lost_interrupts()
        if _may_need_secret(sys.argv[1:]):
            from aspencli.deployments.secret_process import start_early

            start_early()
        from aspencli.cli.main import run  # imported late because it loads the command framework

        code = run()
    except KeyboardInterrupt:  # during the import, or while connections close
        code = 130
        sys.stderr.write(_interrupted(code))
    # Everything is closed by now. The interpreter's final garbage collection would take a fifth of
    # a command's run time.
    gc.freeze()
    sys.exit(code)


def _interrupted(code: int) -> str:
    """Return the message for an interrupt that the command could not report itself."""
    from contextlib import suppress  # the version is shown without it, which takes 4 ms

    message = "Interrupted."
    with suppress(KeyboardInterrupt):  # another one, during these imports
        from aspencli.config import given_format
        from aspencli.errors import JSON_FORMATS, error_json

        if given_format(sys.argv[1:]) in JSON_FORMATS:
            return error_json(code, message) + "\n"
    return f"Error: {message}\n"


def _serves_completion() -> bool:
    """Answer a press of TAB, without loading the commands; return False if there was none."""
    mode = os.environ.get("_ASPENCLI_COMPLETE")
    if mode == "values":
        from aspencli.cli.completion.answer import answer

        answer()
        return True
    if mode == "refresh":
        os.environ.pop("_ASPENCLI_COMPLETE")
        from contextlib import suppress

        from aspencli.cli.completion.refresh import refresh

        with suppress(Exception):  # whatever is in the way: names are only a convenience
            refresh(os.environ.pop("_ASPENCLI_TARGET", ""))
        return True
    return False


def _may_need_secret(words: list[str]) -> bool:
    """Return True if a command line looks as if it will read a remote database.

    The process that reads the secret is then started before the command line is parsed.
    """
    given = dict(pairwise(words))
    given |= dict(word.split("=", 1) for word in words if "=" in word)
    env = given.get("--env") or os.environ.get("ASPEN_ENV")
    reads = "db" in words or "db" in {given.get("--via"), os.environ.get("ASPEN_VIA")}
    return env in {"rdev", "staging", "prod"} and reads and not {"--help", "-h"} & set(words)


def _print_version() -> int:
    try:
        sys.stdout.write(f"aspencli {__version__}\n")
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if isinstance(error, BrokenPipeError):
            return 0
        is_closed = error.errno == errno.EBADF
        why = "standard output is closed" if is_closed else error.strerror
        sys.stderr.write(f"Error: Cannot write the version: {why}\n")
        return 1
    return 0


def _open_closed_streams() -> None:
    """Open closed standard streams on /dev/null, so that no other file gets their descriptors.

    Otherwise results would be written into whatever was opened first: a journal, or a socket.
    Standard output is opened read-only, so that writing to it fails instead of losing results.
    """
    for number, mode in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)  # uses the lowest free descriptor, which is this one
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - must stay open until exit
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115 - same


if __name__ == "__main__":
    main()
