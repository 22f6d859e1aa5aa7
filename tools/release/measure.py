"""What a converted model writes and costs, found out in a process of its own, so that its memory is its own."""

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from funasr_cli.audio.recording import open_recording
from funasr_cli.benchmarks.cases import CaseCost, run_cases
from funasr_cli.benchmarks.subjects import load_subjects, make_workloads
from funasr_cli.compute.device import use_device
from funasr_cli.errors import SetupError
from funasr_cli.options import TranscribeOptions
from tools.release.clips import Clip


@dataclass(frozen=True)
class Measured:
    """What came out, clip by clip.

    Attributes:
        cases: as `funasr bench --rtf` measures them; their texts are those that `funasr transcribe` writes.
        whole_texts: the same read in one piece, pauses and all, as the reference reads them.
    """

    cases: tuple[CaseCost, ...]
    whole_texts: tuple[str, ...]


def measure_apart(
    folder: Path, clips: Sequence[Clip], trials: int, device: str | None, progress: Callable[[str], None]
) -> Measured:
    """Measure in a new process.

    Args:
        folder: of a converted model.
        clips: to transcribe, one at a time.
        trials: timed runs of each, behind one that is not timed.
        device: where to compute; None lets MLX choose.
        progress: told what is being done; a function of a module, which the process can find.

    Raises:
        FunASRError: as in `measure`.
        SetupError: the process was ended by the system.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        try:
            return process.submit(measure, folder, tuple(clips), trials, device, progress).result()
        except BrokenProcessPool as error:
            message = f"{folder.name}: the process ended without a word"
            raise SetupError(message, "is memory short?", code="process-ended") from error


def measure(
    folder: Path, clips: Sequence[Clip], trials: int, device: str | None, progress: Callable[[str], None]
) -> Measured:
    """Measure in this process.

    Raises:
        ModelError: the model is damaged.
        AudioError: a clip cannot be read.
        UsageError: the model does not know a clip's language.
        SetupError: there is no such device.
    """
    if device:
        use_device(device)
    subjects = load_subjects([folder], None, 1, progress)
    recognizer = subjects[0].recognizer
    cases: list[CaseCost] = []
    whole_texts = []
    for clip in clips:
        options = TranscribeOptions(language=clip.language)
        workloads = make_workloads((clip.path,), (), clip.path.parent)
        cases += run_cases(subjects, workloads, [None], [options.draft], options, trials, None, progress)
        recording = open_recording(clip.path, recognizer.sample_rate_hz)
        whole_texts.append(recognizer.transcribe(recording, options, vad=False).text)
    return Measured(tuple(cases), tuple(whole_texts))
