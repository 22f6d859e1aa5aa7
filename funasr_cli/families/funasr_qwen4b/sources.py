"""Readers of the three parts that FunASR-Qwen4B is put together from: encoder, adaptor, language model.

Source of the names of files: OminiX-MLX ``funasr-qwen4b-mlx/src/model.rs`` (``FunASRQwen4B::load``). What
differs: there, a missing file or tensor leaves random values in its place, and unknown tensors are ignored.
Here, each is an error, and so is an encoder that may be another model's.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from funasr_cli.checkpoints import format as files
from funasr_cli.checkpoints import keymap
from funasr_cli.checkpoints.checkpoint import Checkpoint, empty_model
from funasr_cli.checkpoints.pickles import read_state_dict, require_torch
from funasr_cli.checkpoints.quantize import Quantization
from funasr_cli.checkpoints.tensors import Shape, Tensor, open_safetensors, usual_dtype
from funasr_cli.checkpoints.untrusted import file_in, optional_file_in
from funasr_cli.checkpoints.values import check_config
from funasr_cli.compute.backend import nn
from funasr_cli.errors import ModelError
from funasr_cli.families.cmvn import CMVN_FILE
from funasr_cli.families.family import Sources
from funasr_cli.families.funasr_qwen4b import names
from funasr_cli.families.funasr_qwen4b.config import QUERY_ROWS, FunASRQwen4BConfig, misfits
from funasr_cli.families.funasr_qwen4b.prompt import CURRENT
from funasr_cli.families.llm_folder import LLMFolder, open_llm
from funasr_cli.features.fbank import FrontendConfig
from funasr_cli.models.post_norm import PostNormAdaptor, PostNormConfig
from funasr_cli.models.qwen3 import Qwen3
from funasr_cli.models.sanm import SANMConfig, SANMEncoder
from funasr_cli.options import SENSE_VOICE_INPUT

LAYOUT = "OminiX"
SENSE_VOICE = "sensevoice"  # in the name of a file of SenseVoice's encoder; also its model type, without "_"
# Where the parts are looked for, the best first.
ENCODERS = ("sensevoice_iic.safetensors", "sensevoice/encoder.safetensors", files.WEIGHTS_FILE)
ADAPTORS = tuple(
    f"{folder}adaptor_{phase}_final.safetensors" for phase in ("phase3", "phase2") for folder in ("", "models/")
)
LLMS = ("models/Qwen3-4B-4bit", "models/Qwen3-4B-8bit", "models/Qwen3-4B", "qwen3-4b")
PUNCTUATION = ("punc_ct", "models/punc_ct")
# What no tensor states: the values of all known checkpoints.
ENCODER_HEADS, ADAPTOR_HEADS = 4, 8
FRONTEND = FrontendConfig(
    sample_rate_hz=16000, window="hamming", mel_bins=80, frame_length_ms=25.0, frame_shift_ms=10.0,
    stack_frames=7, stack_step=6,
)  # fmt: skip
EMBED, CTC = "embed.weight", "ctc."
OTHER_ENCODER = (
    "Fun-ASR-Nano's encoder has the same names and shapes, and gives wrong characters; so name a folder of "
    "SenseVoiceSmall, or, if you know that this file is from there, rename it to sensevoice_iic.safetensors"
)
NO_PUNCTUATION = "the folder's punctuation model is left out: funasr convert ct-punc converts it"
ADAPTED = "if a LoRA of the language model was trained with this adaptor, it must be merged: see --lora"
CONTRASTIVE = "an adaptor of the first phase of training, which makes no text: a later one is needed"


@dataclass(frozen=True)
class Encoder:
    """An opened encoder, with the front end that feeds it and its CMVN file, if there is one."""

    config: SANMConfig
    frontend: FrontendConfig
    tensors: Mapping[str, Tensor]
    weights: tuple[Path, ...]
    cmvn: Path | None


def is_folder(folder: Path) -> bool:
    """Tell whether a folder has parts of this model: an adaptor of a known name, or next to its LLM."""
    found = [path.name for path in _adaptors(folder)]
    has_llm = any((folder / name / files.CONFIG_FILE).is_file() for name in LLMS)
    return any(has_llm or name.startswith("adaptor_phase") for name in found)


def open_sources(sources: Sources) -> Checkpoint:
    """Open the three parts, each where it is named or else in the folder, and check all names and shapes.

    Raises:
        ModelError: a part is missing, incomplete, damaged, has unknown tensors or does not fit the others; or it
            is not certain that the encoder is SenseVoice's.
        SetupError: torch is needed, but not installed.
    """
    folder = sources.folder
    has_queries = sources.encoder_input == SENSE_VOICE_INPUT
    llm = open_llm(sources.llm or _first(folder, LLMS, files.CONFIG_FILE, "language model", "--llm"))
    path = sources.adaptor or _adaptor(folder)
    adaptor, tensors = _open_adaptor(path)
    encoder = _open_encoder(sources.encoder or _first(folder, ENCODERS, "", "encoder", "--encoder"), has_queries)
    config = FunASRQwen4BConfig(
        encoder_input=sources.encoder_input,
        prompt_format=CURRENT,
        frontend=encoder.frontend,
        encoder=encoder.config,
        adaptor=adaptor,
        llm=llm.config,
        stop_token_ids=llm.stop_token_ids,
        positions=llm.positions,
        empty_think=llm.empty_think,
    )
    check_config(config, f"{encoder.weights[0]}, {path}, {llm.weights[0].parent}", misfits)
    _require_all(llm.weights[0], llm.tensors, "llm.", llm.config, Qwen3(llm.config), llm.quantization)
    cmvn = {CMVN_FILE: encoder.cmvn} if has_queries and encoder.cmvn else {}
    return Checkpoint(
        layout=LAYOUT,
        config=config,
        dtype=usual_dtype(llm.tensors),
        tensors={**encoder.tensors, **tensors, **llm.tensors},
        files={**llm.files, **cmvn},
        weights=(*encoder.weights, path, *llm.weights),
        quantization=llm.quantization,
        is_assembled=True,
        notes=tuple(_notes(folder, path, llm)),
    )


def _notes(folder: Path, adaptor: Path, llm: LLMFolder) -> Iterator[str]:
    yield from llm.notes
    if "phase3" in adaptor.name:
        yield f"{adaptor.name}: {ADAPTED}"
    if adaptor.name == "adaptor_cached.pt":
        yield f"{adaptor.name}: {CONTRASTIVE}"
    if any((folder / name).is_dir() for name in PUNCTUATION):
        yield NO_PUNCTUATION


def _first(folder: Path, known: tuple[str, ...], file: str, what: str, option: str) -> Path:
    """Return the first of these files, or of these folders that has `file`."""
    for name in known:
        if (folder / name / file if file else folder / name).is_file():
            return folder / name
    message = f"{folder}: has no {what} ({', '.join(known)})"
    raise ModelError(message, f"name it with {option}", code="model-missing")


def _adaptors(folder: Path) -> Iterator[Path]:
    """Yield the adaptors in a folder, the best first; those of unknown names last."""
    yield from (folder / name for name in ADAPTORS if (folder / name).is_file())
    yield from sorted(path for path in folder.glob("adaptor*") if path.suffix in (".safetensors", ".pt"))


def _adaptor(folder: Path) -> Path:
    found = list(dict.fromkeys(_adaptors(folder)))
    if not found:
        message = f"{folder}: has no adaptor ({', '.join(ADAPTORS)}, or another adaptor*.safetensors or .pt)"
        raise ModelError(message, "name it with --adaptor", code="model-missing")
    if len(found) > 1 and found[0].relative_to(folder).as_posix() not in ADAPTORS:
        hint = f"name one with --adaptor: {', '.join(path.name for path in found)}"
        raise ModelError(f"{folder}: has several adaptors", hint, code="model-ambiguous")
    return found[0]


def _open_adaptor(path: Path) -> tuple[PostNormConfig, dict[str, Tensor]]:
    """Open an adaptor; return its sizes, which its tensors tell, and its tensors."""
    stored = _open(path)
    rules = (
        names.PYTORCH_ADAPTOR if any(name.startswith("transformer.") for name in stored) else names.OMINIX_ADAPTOR
    )
    tensors = keymap.translate(stored, rules, str(path))
    shapes = {name.removeprefix(names.ADAPTOR): tensor.shape for name, tensor in tensors.items()}
    with _told_by_tensors(path, "an adaptor of FunASR-Qwen4B"):
        width, input_dim = shapes["input_proj.weight"]
        config = PostNormConfig(
            input_dim=input_dim,
            width=width,
            ffn_dim=shapes["layers.0.linear1.weight"][0],
            output_dim=shapes["output_proj.weight"][0],
            layers=_count(shapes, "layers."),
            heads=ADAPTOR_HEADS,
        )
    check_config(config, str(path), lambda _: ())  # before a network of these sizes is made
    _require_all(path, tensors, names.ADAPTOR, config, PostNormAdaptor(config))
    return config, tensors


def _open_encoder(path: Path, has_queries: bool) -> Encoder:
    """Open a file with SenseVoice's encoder, or a folder with all of SenseVoiceSmall, converted or not."""
    encoder = _of_sense_voice(path) if path.is_dir() else _of_file(path)
    queries = encoder.tensors.get(EMBED)
    if has_queries and not (queries and encoder.cmvn):
        lacking = CMVN_FILE if queries else EMBED
        message = f"{path}: lacks {lacking}, which --encoder-input {SENSE_VOICE_INPUT} needs"
        raise ModelError(message, "name a folder of SenseVoiceSmall with --encoder", code="model-missing")
    own = {name: tensor for name, tensor in encoder.tensors.items() if has_queries or name != EMBED}
    sanm = {name: tensor for name, tensor in own.items() if name != EMBED}
    if has_queries and queries and queries.shape != (size := (QUERY_ROWS, encoder.config.input_dim)):
        raise ModelError(f"{path}: {EMBED} is {queries.shape}, not {size}", code="model-misfit")
    check_config(encoder.config, str(path), lambda _: ())
    _require_all(path, sanm, names.ENCODER, encoder.config, SANMEncoder(encoder.config))
    return replace(encoder, tensors=own)


def _of_sense_voice(folder: Path) -> Encoder:
    from funasr_cli.families import registry
    from funasr_cli.families.open import open_checkpoint

    source = open_checkpoint(folder, folder.name)
    family = registry.of_config(source.config)
    if family.model_type.replace("_", "") != SENSE_VOICE:
        message = f"{folder}: the encoder must be that of SenseVoiceSmall, but this is {family.title}"
        raise ModelError(message, "name a folder of SenseVoiceSmall with --encoder", code="model-misfit")
    if source.quantization:
        hint = "convert it without --quantize, and name the result with --encoder"
        raise ModelError(f"{folder}: is quantized", hint, code="model-quantized")
    kept = {name: tensor for name, tensor in source.tensors.items() if not name.startswith(CTC)}
    return Encoder(
        config=source.config.encoder,
        frontend=source.config.frontend,
        tensors=keymap.translate(kept, names.SENSE_VOICE, str(folder)),
        weights=source.weights,
        cmvn=source.files.get(CMVN_FILE),
    )


def _of_file(path: Path) -> Encoder:
    stored = {name: tensor for name, tensor in _open(path).items() if not name.startswith(CTC)}
    is_nano = any(name.startswith(("audio_encoder.", "audio_adaptor.", "llm.", "model.")) for name in stored)
    is_named = SENSE_VOICE in f"{path.parent.name}/{path.name}".casefold()
    if is_nano or not (is_named or EMBED in stored):
        what = "the encoder of another model" if is_nano else "may be the encoder of another model"
        raise ModelError(f"{path}: {what}", OTHER_ENCODER, code="model-ambiguous")
    tensors = keymap.translate(stored, names.OMINIX_ENCODER, str(path))
    shapes = {name.removeprefix(names.ENCODER): tensor.shape for name, tensor in tensors.items()}
    with _told_by_tensors(path, "SenseVoice's encoder"):
        config = SANMConfig(
            input_dim=shapes["encoders0.0.self_attn.linear_q_k_v.weight"][1],
            width=shapes["after_norm.weight"][0],
            heads=ENCODER_HEADS,
            ffn_dim=shapes["encoders0.0.feed_forward.w_1.weight"][0],
            blocks=1 + _count(shapes, "encoders."),
            tp_blocks=_count(shapes, "tp_encoders."),
            memory_taps=shapes["encoders0.0.self_attn.fsmn_block.weight"][1],
            memory_shift=0,
        )
    return Encoder(config, FRONTEND, tensors, (path,), optional_file_in(path.parent, CMVN_FILE))


def _open(path: Path) -> dict[str, Tensor]:
    """Open safetensors or a pickle."""
    path = file_in(path.parent, path.name)
    if path.suffix == ".safetensors":
        return open_safetensors(path)
    require_torch(path.name)
    return dict(read_state_dict(path))


@contextmanager
def _told_by_tensors(path: Path, what: str) -> Iterator[None]:
    """Raise a `ModelError` if a tensor that tells a size is missing or has another number of axes."""
    try:
        yield
    except KeyError as error:
        raise ModelError(f"{path}: not {what}: {error} is missing", code="model-misfit") from error
    except (ValueError, IndexError) as error:
        raise ModelError(f"{path}: not {what}: a tensor has other axes", code="model-misfit") from error


def _count(shapes: Mapping[str, Shape], prefix: str) -> int:
    """Return the number of layers: one more than the highest number in a name."""
    numbers = (name.removeprefix(prefix).partition(".")[0] for name in shapes if name.startswith(prefix))
    return 1 + max((int(number[:6]) for number in numbers if number.isdecimal()), default=-1)


def _require_all(
    path: Path,
    tensors: Mapping[str, Tensor],
    prefix: str,
    config: Any,
    network: nn.Module,
    quantization: Quantization | None = None,
) -> None:
    """Raise a `ModelError` that names the file unless a part has exactly its network's tensors."""
    whole = nn.Module()
    setattr(whole, prefix.rstrip("."), network)
    part = Checkpoint(LAYOUT, config, "", tensors, {}, (path,), quantization=quantization)
    empty_model(part, whole)
