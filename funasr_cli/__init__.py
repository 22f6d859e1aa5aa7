"""Speech transcription on your own machine: the Fun-ASR family on MLX.

    import funasr_cli
    recognizer = funasr_cli.load("FunAudioLLM/Fun-ASR-Nano-2512")
    print(funasr_cli.transcribe("speech.wav", recognizer, language="en").text)

Importing this package imports nothing heavy; the functions do when they are called.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from funasr_cli.checkpoints.convert import Conversion
    from funasr_cli.pipeline import Recognizer
    from funasr_cli.transcript import Transcript

__version__ = "0.1.0"
__all__ = ["__version__", "convert", "load", "transcribe"]


def load(model: str | None = None, dtype: str | None = None) -> "Recognizer":
    """Load a converted model.

    Args:
        model: folder, hub id or alias; None takes the model that `funasr transcribe` would.
        dtype: "stored", "float32" or "bfloat16"; None chooses for the device.

    Raises:
        ModelError: it has not been converted, or is damaged.
    """
    from funasr_cli.checkpoints.hub import find_model
    from funasr_cli.checkpoints.load import load_model
    from funasr_cli.pipeline import Recognizer

    return Recognizer(load_model(find_model(model), dtype))


def transcribe(audio: str | Path, recognizer: "Recognizer | None" = None, **options: Any) -> "Transcript":
    """Transcribe a file.

    Args:
        audio: anything that soundfile or ffmpeg reads, at any sample rate, mono or not.
        recognizer: what `load` returned; None loads the default model anew.
        options: fields of `funasr_cli.options.TranscribeOptions`.

    Raises:
        AudioError: the file cannot be read.
        UsageError: an option is out of range, or the model does not know the language.
    """
    from funasr_cli.audio.recording import open_recording
    from funasr_cli.options import TranscribeOptions

    chosen = TranscribeOptions(**options)
    recognizer = recognizer or load()
    return recognizer.transcribe(open_recording(audio, recognizer.sample_rate_hz), chosen)


def convert(
    source: str,
    out: str | Path | None = None,
    *,
    revision: str | None = None,
    force: bool = False,
    **options: Any,
) -> "Conversion":
    """Convert a checkpoint.

    Args:
        source: folder in FunASR's layout, hub id or alias.
        out: folder to create; None takes the models folder and the source's name.
        revision: branch, tag or commit of a hub id.
        force: replace an earlier conversion.
        options: fields of `funasr_cli.options.ConvertOptions`.

    Raises:
        ModelError: the source is missing, damaged or not supported.
        OutputError: ``out`` exists.
        UsageError: an option is out of range.
        SetupError: torch is not installed, or the hub cannot be reached.
    """
    from funasr_cli.checkpoints.convert import convert as run
    from funasr_cli.options import ConvertOptions

    folder = Path(out) if out is not None else None
    return run(source, folder, ConvertOptions(**options), revision=revision, force=force)
