"""`make real-data`: fetch Whisper's weights and recorded speech into a cache, or say what is missing.

    python -m tools.real_data [--check] [--only weights|speech]

Exit codes: 0 if all parts are complete, 5 if something could not be fetched.
"""

import argparse
import sys

from funasr_cli.errors import ExitCode, FunASRError
from tools.real_data import speech, voices, weights
from tools.real_data.cache import VARIABLE, root

PARTS = (*weights.PARTS, *speech.PARTS, *voices.PARTS)


def main() -> int:
    """Parse the command line, fetch what is missing, and print the state of each part."""
    parser = argparse.ArgumentParser(prog="python -m tools.real_data", description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="download and write nothing")
    parser.add_argument("--only", choices=("weights", "speech"), help="only these parts")
    options = parser.parse_args()
    missing = 0
    print(f"{root()} ({VARIABLE})", flush=True)
    for part in PARTS:
        if not part.name.startswith(options.only or ""):
            continue
        problem = part.problem()
        state = problem or "complete"
        if problem and not options.check:
            try:
                part.write()
                state, problem = "fetched", ""
            except FunASRError as error:
                state = f"missing: {error.message}" + (f" ({error.hint})" if error.hint else "")
            except OSError as error:
                state = f"missing: {error}"
        missing += bool(problem)
        print(f"  {part.name:32} {state}", flush=True)
    return ExitCode.ENVIRONMENT if missing else ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
