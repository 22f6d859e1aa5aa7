"""``python -m funasr_cli``."""

from funasr_cli.cli.app import main

main()
