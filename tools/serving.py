"""Measure a server: requests at once against one after another, and whether it answers others meanwhile.

    python -m tools.serving --clients 8 -- --model demo

starts ``funasr serve`` with the options after ``--``, sends it the same recordings one after another, then all at
once, compares the texts, and asks for ``/health`` every 20 ms meanwhile. With ``--synthetic full``, the model has
random weights and the size of Fun-ASR-Nano; a recording is a second long then. With ``--mixed 1000`` (Linux), it
sends that many more requests of all kinds, and prints what the server's process holds after a fifth of them, and
at the end.
"""

import argparse
import asyncio
import os
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
LONGEST_REMOVAL_S = 10.0
MIXED: tuple[dict[str, str], ...] = (
    {}, {"stream": "true"}, {"language": "en", "response_format": "verbose_json"}, {"response_format": "srt"},
    {"response_format": "text", "prompt": "Sarah, Emma"}, {"temperature": "0.5"}, {"language": "xx"},
    {"model": "gone"},
)  # fmt: skip
ANSWERS = {200, 400, 404}  # the last two kinds are refused, and so is what a model does not support


@contextmanager
def served(options: Sequence[str], temporary: Path) -> Iterator[tuple[str, int]]:
    """Run a server on a free port; yield its address and process number once the default model is loaded."""
    command = [sys.executable, "-m", "funasr_cli", "serve", "--port", "0", *options]
    environment = os.environ | {"TMPDIR": str(temporary)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr
        said = ""
        try:
            while "loaded" not in said or "listening" not in said:
                line = process.stderr.readline()
                if not line:
                    raise SystemExit(said)
                said += line
                print(line, end="", file=sys.stderr)
            yield re.findall(r"listening on (\S+)", said)[0], process.pid
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


async def measure_mixed(
    address: str, process: int, temporary: Path, recordings: Sequence[bytes], count: int, clients: int
) -> None:
    """Send many requests of all kinds, and print what the server's process holds after a fifth, and at the end."""
    turns = asyncio.Semaphore(clients)

    async def one(client: httpx.AsyncClient, number: int) -> int:
        async with turns:
            files, data = {"file": ("a.wav", recordings[number % len(recordings)])}, MIXED[number % len(MIXED)]
            return (await client.post(f"{address}/v1/audio/transcriptions", files=files, data=data)).status_code

    async with httpx.AsyncClient(timeout=None) as client:
        for numbers in (range(count // 5), range(count // 5, count)):
            if unexpected := set(await asyncio.gather(*(one(client, number) for number in numbers))) - ANSWERS:
                raise SystemExit(f"unexpected answers: {unexpected}")
            await emptied(temporary)
            print(f"after {numbers.stop} mixed requests: {held(process, temporary)}")


async def emptied(folder: Path) -> None:
    """Wait until a folder is empty, but not long: a server removes an upload after the last byte of its answer."""
    ends = time.monotonic() + LONGEST_REMOVAL_S
    while any(path.is_file() for path in folder.rglob("*")) and time.monotonic() < ends:
        await asyncio.sleep(PROBE_EVERY_S)


def held(process: int, temporary: Path) -> str:
    """Return a process's memory, threads, open files and temporary files, in words; Linux only."""
    folder = Path("/proc", str(process))
    status = dict(re.findall(r"^(\w+):\s+(\d+)", (folder / "status").read_text(), re.MULTILINE))
    files = sum(path.is_file() for path in temporary.rglob("*"))
    opened = len(list((folder / "fd").iterdir()))
    resident = f"{int(status['VmRSS']) / 1000:.0f} MB, {status['Threads']} threads"
    return f"{resident}, {opened} open files, {files} temporary"


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
    parser.add_argument("--mixed", type=int, default=0, help="further requests of all kinds")
    parser.add_argument("options", nargs="*", help="of funasr serve, after --")
    given = parser.parse_args()
    with ExitStack() as stack:
        options = list(given.options)
        if given.synthetic:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            options += ["--model", str(write_synthetic(folder, given.synthetic))]
        temporary = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        address, process = stack.enter_context(served(options, temporary))
        recordings = recordings_of(given.clients, 1.0 if given.synthetic else None)
        asyncio.run(measure(address, recordings))
        if given.mixed:
            asyncio.run(measure_mixed(address, process, temporary, recordings, given.mixed, given.clients))


if __name__ == "__main__":
    main()
