"""Peak memory of a process that reads files."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

LISTEN = """
from funasr_cli.audio.decode import open_recording

def use(path):
    return sum(map(len, open_recording(path, 16000).blocks()))
"""
TELL = """
import json, resource, sys

def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)

for path in sys.argv[1:]:
    print(json.dumps([use(path), peak_mib()]))
"""


def after_each(paths: Sequence[Path], use: str = LISTEN) -> list[tuple[int, float]]:
    """Run a process that reads the paths in turn; return, for each, its samples at 16 kHz and the peak MiB so far.

    `use` defines the function that reads a path and returns its samples.

    A shell starts the process: Linux also counts the memory of the program it replaces, here all of pytest.
    """
    command = ["sh", "-c", '"$0" "$@"; exit $?', sys.executable, "-c", use + TELL, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, check=True)
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]
