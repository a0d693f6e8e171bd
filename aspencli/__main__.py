"""The entry point; it answers ``--version`` without loading anything else."""

import gc
import sys

from aspencli import __version__


def main() -> None:
    """Run the command line and end the process with its exit code."""
    if sys.argv[1:] == ["--version"]:
        sys.stdout.write(f"aspencli {__version__}\n")
        return
    # What a start makes lives until the end; looking through it for garbage takes a tenth of it.
    gc.set_threshold(100_000, 50, 50)
    try:
        from aspencli.main import run  # loads the command framework, hence not at the top

        code = run()
    except KeyboardInterrupt:  # while that loads, or while connections are closed
        sys.stderr.write("Error: interrupted\n")
        code = 130
    # Everything was closed; the interpreter would look through all that was loaded before it ends,
    # for a fifth of the time that a command takes.
    gc.freeze()
    sys.exit(code)


if __name__ == "__main__":
    main()
