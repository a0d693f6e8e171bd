"""The entry point; it answers ``--version`` without loading anything else."""

import errno
import gc
import os
import sys

from aspencli import __version__


def main() -> None:
    """Run the command line and end the process with its exit code."""
    _open_closed_streams()
    if sys.argv[1:] == ["--version"]:
        sys.exit(_tell_version())
    # What a start makes lives until the end; looking through it for garbage takes a tenth of it.
    gc.set_threshold(100_000, 50, 50)
    try:
        from aspencli.interrupts import deliver_lost_interrupts

        deliver_lost_interrupts()
        from aspencli.main import run  # loads the command framework, hence not at the top

        code = run()
    except KeyboardInterrupt:  # while that loads, or while connections are closed
        sys.stderr.write("Error: interrupted\n")
        code = 130
    # Everything was closed; the interpreter would look through all that was loaded before it ends,
    # for a fifth of the time that a command takes.
    gc.freeze()
    sys.exit(code)


def _tell_version() -> int:
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
    """Give closed standard streams a file, so that no file of ours gets their numbers.

    A result would otherwise be written into whatever was opened first: a journal, or a socket.
    Standard output gets one that refuses every write, so that nothing seems to be printed.
    """
    for number, mode in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)  # takes the lowest number that is free, which is this one
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - open as long as the process
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115 - same


if __name__ == "__main__":
    main()
