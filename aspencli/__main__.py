"""The entry point; it answers ``--version`` without loading anything else."""

import sys

from aspencli import __version__


def main() -> None:
    """Run the command line and end the process with its exit code."""
    if sys.argv[1:] == ["--version"]:
        sys.stdout.write(f"aspencli {__version__}\n")
        return
    from aspencli.main import run  # loads the command framework, hence not at the top

    sys.exit(run())


if __name__ == "__main__":
    main()
