"""Transcribe speech on your own machine with the Fun-ASR models on MLX.

    import funasr_cli

    asr = funasr_cli.load()  # the default model, once it has been fetched
    transcript = asr.transcribe("speech.wav", language="en")
    print(transcript.text)  # transcript.segments has the times

Importing this package is cheap: NumPy and MLX are imported when a function first needs them.
"""

import os
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from funasr_cli.capabilities import Capabilities
from funasr_cli.errors import FunASRError
from funasr_cli.options import (
    AUTO_DTYPE,
    AUTO_ENGINE,
    AUTO_PUNCTUATION,
    DEFAULT_HUB,
    TranscribeOptions,
    known_hub,
)
from funasr_cli.scheduling.events import Event, Failed, Finished, PartialText, Read, SegmentFinished
from funasr_cli.transcript import (
    Ledger,
    Score,
    Segment,
    TimedText,
    Timings,
    Transcript,
    Translation,
    Word,
)

if TYPE_CHECKING:
    from funasr_cli.audio.decode import AudioInput, Source
    from funasr_cli.conversion.convert import Conversion
    from funasr_cli.pipeline import Recognizer
    from funasr_cli.speech_model import EncodedAudio, SegmentRequest, TranscriptStage
    from funasr_cli.text_generator import TextGenerator
    from funasr_cli.text_model import TextOptions, TextResult

__version__ = "0.2.0"
Draft, Settled = PartialText, SegmentFinished  # former names, kept for one release
__all__ = [
    "AudioInput", "Capabilities", "Conversion", "Draft", "EncodedAudio", "Event", "Failed", "Finished",
    "FunASRError", "Ledger", "PartialText", "Read", "Recognizer", "Score", "Segment", "SegmentFinished",
    "SegmentRequest", "Settled", "Source", "TextGenerator", "TextOptions", "TextResult", "TimedText", "Timings",
    "TranscribeOptions", "Transcript", "TranscriptStage", "Translation", "Word", "__version__", "convert", "load",
    "load_text",
]  # fmt: skip

_HEAVY = {  # types whose modules import NumPy or MLX
    "AudioInput": "audio.decode",
    "Conversion": "conversion.convert",
    "EncodedAudio": "speech_model",
    "Recognizer": "pipeline",
    "SegmentRequest": "speech_model",
    "Source": "audio.decode",
    "TextGenerator": "text_generator",
    "TextOptions": "text_model",
    "TextResult": "text_model",
    "TranscriptStage": "speech_model",
}

if not TYPE_CHECKING:  # a type checker would accept any misspelt name

    def __getattr__(name: str) -> Any:
        """Import the type of this name on first use."""
        if name not in _HEAVY:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_HEAVY[name]}"), name)


def load(
    model: str | Path | None = None,
    dtype: str | None = AUTO_DTYPE,
    align_with: str | Path | None = None,
    *,
    engine: str = AUTO_ENGINE,
    stages: "Sequence[TranscriptStage]" = (),
    punctuation: str | Path = AUTO_PUNCTUATION,
    speaker_model: str | Path | None = None,
    translator: str | Path | None = None,
) -> "Recognizer":
    """Load a converted model.

    Args:
        model: folder, hub id or alias. None uses the default model of `funasr transcribe`.
        dtype: "stored", "float32", "bfloat16", or "int8", which the native engine computes. "auto": as stored on
            a GPU; on a CPU int8 if it gives the same texts as float32 on a few clips, else float32. This is tried
            when a model is first used, unless its conversion has done it.
        align_with: another converted model that supplies word times for a model without them.
        engine: what computes the model: "mlx", "native" (this package's C library, on a CPU, in int8 or float32)
            or "auto", which suits the type.
        stages: stages that change each transcript, applied in this order.
        punctuation: a converted punctuation model for text that the main model writes without marks; "auto": one
            that is on this machine, if there is one; "none": leave such text as it is.
        speaker_model: a converted model of voices, which the option `speakers` needs; "auto": one that is on this
            machine.
        translator: a chat model, converted or in the layout of Transformers or mlx-lm, that translates in place of
            the main model, with the option `translate`. It is computed in the same type and by the same engine.

    Raises:
        ModelError: a model has not been converted, or is damaged.
        UsageError: the `align_with` model has no word times, or the main model needs no help with them, or with
            punctuation; the engine cannot compute this model.
        SetupError: the native engine is missing, or there is not enough memory.
    """
    from funasr_cli.families.load import load_aligner, load_model, load_punctuation, load_speakers, load_text
    from funasr_cli.hubs.find import (
        find_aligner,
        find_model,
        find_punctuation,
        find_speaker_model,
        find_translator,
    )
    from funasr_cli.pipeline import Recognizer

    folder = find_model(os.fspath(model) if model is not None else None)
    aligner = find_aligner(os.fspath(align_with)) if align_with is not None else None
    marks = find_punctuation(name := os.fspath(punctuation))
    voices = find_speaker_model(os.fspath(speaker_model)) if speaker_model is not None else None
    chat = find_translator(os.fspath(translator)) if translator is not None else None
    loaded = load_model(folder, dtype, engine)
    if name == AUTO_PUNCTUATION and loaded.capabilities.punctuation:
        marks = None
    return Recognizer(
        loaded,
        stages,
        align_with=load_aligner(aligner, dtype) if aligner else None,
        punctuate_with=load_punctuation(marks) if marks else None,
        must_punctuate=name != AUTO_PUNCTUATION,
        tell_apart_with=load_speakers(voices) if voices else None,
        translator=load_text(chat, dtype, engine) if chat else None,
    )


def load_text(model: str | Path, dtype: str | None = AUTO_DTYPE, *, engine: str = AUTO_ENGINE) -> "TextGenerator":
    """Load a language model that writes text from text, such as Qwen3.

    Args:
        model: folder, hub id or short name: converted, or as Transformers or mlx-lm write it.
        dtype: as for `load`. "auto" on a CPU: int8 if it gives the same texts as float32 on a few prompts.
        engine: as for `load`.

    Raises:
        ModelError: the model is missing, damaged, or of another kind.
        UsageError: the engine cannot compute this model.
        SetupError: the native engine is missing, or there is not enough memory.
    """
    from funasr_cli.families.family import TEXT
    from funasr_cli.families.load import load_text as load_folder
    from funasr_cli.hubs.find import find_model
    from funasr_cli.text_generator import TextGenerator

    return TextGenerator(load_folder(find_model(os.fspath(model), TEXT), dtype, engine))


def convert(
    source: str | Path,
    out: str | Path | None = None,
    *,
    revision: str | None = None,
    hub: str = DEFAULT_HUB,
    force: bool = False,
    **options: Any,
) -> "Conversion":
    """Convert a checkpoint.

    Args:
        source: folder in any supported layout, name of a converted model, hub id or alias.
        out: folder to create. None creates one in the models folder, named after the source.
        revision: branch, tag or commit of a hub id.
        hub: hub to download from, "hf" (Hugging Face) or "ms" (ModelScope).
        force: replace an earlier conversion.
        options: fields of `funasr_cli.options.ConvertOptions`.

    Raises:
        ModelError: the source is missing, damaged or unsupported.
        OutputError: ``out`` exists, or the disk is too full.
        UsageError: an option is out of range.
        SetupError: torch is needed but not installed, or the hub cannot be reached.
    """
    from funasr_cli.conversion.convert import convert as run
    from funasr_cli.options import ConvertOptions
    from funasr_cli.verification.proof import verifier

    name, folder = os.fspath(source), Path(out) if out is not None else None
    asked = ConvertOptions(**options)
    return run(name, folder, asked, verifier, revision=revision, hub=known_hub(hub), force=force)
