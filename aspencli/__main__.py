"""The entry point; it answers ``--version`` without loading anything else."""

import sys

from aspencli import __version__


def main() -> None:
    """Run the command line and end the process with its exit code."""
    if sys.argv[1:] == ["--version"]:
        sys.stdout.write(f"aspencli {__version__}\n")
        return
    try:
        from aspencli.main import run  # loads the command framework, hence not at the top

        code = run()
    except KeyboardInterrupt:  # while that loads, or while connections are closed
        sys.stderr.write("Error: interrupted\n")
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    main()
