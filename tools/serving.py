"""Measure a server: requests at once against one after another, and whether it answers others meanwhile.

    python -m tools.serving --clients 8 -- --model demo

starts ``funasr serve`` with the options after ``--``, sends it the same recordings one after another, then all at
once, compares the texts, and asks for ``/health`` every 20 ms meanwhile. With ``--synthetic full``, the model has
random weights and the size of Fun-ASR-Nano; a recording is a second long then.
"""

import argparse
import asyncio
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import numpy as np

from funasr_cli import demo
from funasr_cli.audio.decode import load_audio
from funasr_cli.audio.vad import SAMPLE_RATE_HZ
from funasr_cli.benchmarks.synthetic import write_synthetic

PROBE_EVERY_S = 0.02


@contextmanager
def served(options: Sequence[str]) -> Iterator[str]:
    """Run a server on a free port, and yield its address once the default model is loaded."""
    command = [sys.executable, "-m", "funasr_cli", "serve", "--port", "0", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        said = ""
        try:
            while "loaded" not in said or "listening" not in said:
                line = process.stderr.readline()
                if not line:
                    raise SystemExit(said)
                said += line
                print(line, end="", file=sys.stderr)
            yield re.findall(r"listening on (\S+)", said)[0]
        finally:
            process.terminate()


async def transcribe(client: httpx.AsyncClient, address: str, recording: bytes) -> str:
    """Return the text of a recording."""
    answer = await client.post(f"{address}/v1/audio/transcriptions", files={"file": ("a.wav", recording)})
    answer.raise_for_status()
    return str(answer.json()["text"])


async def probe(client: httpx.AsyncClient, address: str, found_ms: list[float]) -> None:
    """Ask for the health of the server until cancelled."""
    while True:
        began = time.perf_counter()
        (await client.get(f"{address}/health")).raise_for_status()
        found_ms.append(1000 * (time.perf_counter() - began))
        await asyncio.sleep(PROBE_EVERY_S)


async def measure(address: str, recordings: Sequence[bytes]) -> None:
    """Print what both ways take."""
    async with httpx.AsyncClient(timeout=None) as client:
        await transcribe(client, address, recordings[0])
        began = time.perf_counter()
        alone = [await transcribe(client, address, each) for each in recordings]
        middle, probes_ms = time.perf_counter(), list[float]()
        probing = asyncio.create_task(probe(client, address, probes_ms))
        together = await asyncio.gather(*(transcribe(client, address, each) for each in recordings))
        ended = time.perf_counter()
        probing.cancel()
    serial_s, parallel_s = middle - began, ended - middle
    print(f"{len(recordings)} requests: {serial_s:.2f} s one after another, {parallel_s:.2f} s at once,")
    print(f"ratio {parallel_s / serial_s:.2f}; texts {'the same' if together == alone else 'DIFFER'}")
    p95, most = np.percentile(probes_ms, 95), max(probes_ms)
    print(f"/health meanwhile: {len(probes_ms)} probes, 95 of 100 under {p95:.0f} ms, none over {most:.0f} ms")


def recordings_of(count: int, duration_s: float | None) -> list[bytes]:
    """Return recordings in WAV: the demo's clips in turns, cut to a length if one is given."""
    import io

    import soundfile

    found = []
    clips = demo.clips()
    for index in range(count):
        samples = load_audio(clips[index % len(clips)].path, SAMPLE_RATE_HZ).samples
        file = io.BytesIO()
        end = None if duration_s is None else round(duration_s * SAMPLE_RATE_HZ)
        soundfile.write(file, samples[:end], SAMPLE_RATE_HZ, format="WAV")
        found.append(file.getvalue())
    return found


def main() -> None:
    """Run the tool."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--synthetic", choices=("full", "demo"))
    parser.add_argument("options", nargs="*", help="of funasr serve, after --")
    given = parser.parse_args()
    with ExitStack() as stack:
        options = list(given.options)
        if given.synthetic:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            options += ["--model", str(write_synthetic(folder, given.synthetic))]
        address = stack.enter_context(served(options))
        asyncio.run(measure(address, recordings_of(given.clients, 1.0 if given.synthetic else None)))


if __name__ == "__main__":
    main()
