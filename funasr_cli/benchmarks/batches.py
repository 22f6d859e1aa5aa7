"""What decoding side by side saves: the same segments in batches of several sizes, in turns."""

import dataclasses
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

from funasr_cli.audio.recording import open_recording
from funasr_cli.checkpoints.load import load_model
from funasr_cli.measure import Spread
from funasr_cli.options import TranscribeOptions
from funasr_cli.pipeline import Recognizer
from funasr_cli.transcript import Transcript

SIZES = (1, 4, 16)


@dataclass(frozen=True)
class BatchCost:
    """What a batch size costs.

    Attributes:
        wall_s: all recordings, from the first sample to the last token.
        times_faster: throughput against the first size of the comparison.
        same_texts: how many recordings have the text that they have with the first size.
    """

    batch_size: int
    wall_s: Spread
    audio_s: float
    tokens: int
    times_faster: float
    same_texts: int


def run_batches(
    folder: Path,
    paths: list[Path],
    options: TranscribeOptions,
    recordings: int,
    trials: int,
    progress: Callable[[str], None],
) -> tuple[BatchCost, ...]:
    """Transcribe the same recordings with every batch size.

    Args:
        folder: a converted model.
        paths: recordings.
        options: as for a transcription, but for the batch size.
        recordings: how many are transcribed in a run; the paths are repeated, or cut off.
        trials: runs of each size, in turns with the others, behind a short one that is not timed.
        progress: told what is being timed.

    Raises:
        AudioError: a recording cannot be read.
    """
    recognizer = Recognizer(load_model(folder))
    batch = list(islice(cycle([open_recording(path, recognizer.sample_rate_hz) for path in paths]), recordings))
    recognizer.transcribe_batch(batch[: max(SIZES)], dataclasses.replace(options, max_tokens=2, exact_tokens=None))
    runs: dict[int, list[tuple[float, list[Transcript]]]] = {size: [] for size in SIZES}
    for trial in range(trials):
        for size in SIZES:
            progress(f"batches of {size}, {trial + 1} of {trials}")
            started = time.perf_counter()
            transcripts = recognizer.transcribe_batch(batch, dataclasses.replace(options, batch_size=size))
            runs[size].append((time.perf_counter() - started, transcripts))
    return tuple(_costs(runs))


def _costs(runs: dict[int, list[tuple[float, list[Transcript]]]]) -> Iterator[BatchCost]:
    base_s, base_texts = None, []
    for size, trials in runs.items():
        wall_s = Spread.of([seconds for seconds, _ in trials])
        transcripts = trials[0][1]
        texts = [transcript.text for transcript in transcripts]
        if base_s is None:
            base_s, base_texts = wall_s.median, texts
        yield BatchCost(
            batch_size=size,
            wall_s=wall_s,
            audio_s=sum(transcript.duration_s for transcript in transcripts),
            tokens=sum(transcript.timings.tokens for transcript in transcripts),
            times_faster=base_s / wall_s.median,
            same_texts=sum(map(str.__eq__, texts, base_texts)),
        )
