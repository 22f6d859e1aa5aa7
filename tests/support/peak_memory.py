"""What reading recordings takes at its peak."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

READ = """
import json, resource, sys
from funasr_cli.audio.decode import open_recording

def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)

for path in sys.argv[1:]:
    samples = sum(map(len, open_recording(path, 16000).blocks()))
    print(json.dumps([samples, peak_mib()]))
"""


def after_each(paths: Sequence[Path]) -> list[tuple[int, float]]:
    """How many samples at 16 kHz, and MiB at the peak until then, when these are read in turn by one process.

    A shell starts it: Linux counts what a process took before it became another program, here all of pytest.
    """
    command = ["sh", "-c", '"$0" "$@"; exit $?', sys.executable, "-c", READ, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, check=True)
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]
