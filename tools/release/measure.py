"""Texts and costs of a converted model, measured in a separate process, so that its memory can be measured."""

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
    """The results, clip by clip.

    Attributes:
        cases: as measured by `funasr bench --rtf`; their texts are those of `funasr transcribe`.
        whole_texts: texts of the clips read in one piece, including pauses, as the reference reads them.
    """

    cases: tuple[CaseCost, ...]
    whole_texts: tuple[str, ...]


def measure_apart(
    folder: Path, clips: Sequence[Clip], trials: int, device: str | None, progress: Callable[[str], None]
) -> Measured:
    """Measure in a new process.

    Args:
        folder: the converted model.
        clips: clips to transcribe, one at a time.
        trials: timed runs of each clip, after one that is not timed.
        device: device to compute on; None lets MLX choose.
        progress: called with a description of each step; a module-level function, for use in the process.

    Raises:
        FunASRError: as in `measure`.
        SetupError: the system killed the process.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        try:
            return process.submit(measure, folder, tuple(clips), trials, device, progress).result()
        except BrokenProcessPool as error:
            message = f"{folder.name}: the measuring process was killed"
            raise SetupError(message, "it may have run out of memory", code="process-ended") from error


def measure(
    folder: Path, clips: Sequence[Clip], trials: int, device: str | None, progress: Callable[[str], None]
) -> Measured:
    """Measure in this process.

    Raises:
        ModelError: the model is damaged.
        AudioError: a clip cannot be read.
        UsageError: the model does not support a clip's language.
        SetupError: the device does not exist.
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
