"""``python -m funasr_cli``, ``funasr`` and ``funasr-cli``."""

import sys


def main() -> None:
    """Import the program and run it; Ctrl-C counts from the first moment on."""
    try:
        from funasr_cli.cli.app import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("warning: interrupted\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
