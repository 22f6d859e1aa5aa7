"""Entry point of ``python -m funasr_cli``, ``funasr`` and ``funasr-cli``."""

import sys

from funasr_cli.errors import ExitCode


def main() -> None:
    """Import the program and run it. Ctrl-C is handled during the import as well."""
    try:
        from funasr_cli.cli.app import main as run

        run()
    except KeyboardInterrupt:
        if sys.stderr:
            sys.stderr.write("warning: interrupted\n")
        sys.exit(ExitCode.INTERRUPTED)


if __name__ == "__main__":
    main()
