"""The `Family` of SenseVoiceSmall."""

from typing import TYPE_CHECKING

from funasr_cli.checkpoints import funasr
from funasr_cli.checkpoints.checkpoint import Checkpoint
from funasr_cli.checkpoints.format import FORMAT
from funasr_cli.checkpoints.keymap import SAME
from funasr_cli.checkpoints.pieces import PIECES_FILE, TOKENS_FILE, converted_vocabulary
from funasr_cli.checkpoints.quantize import Part
from funasr_cli.checkpoints.untrusted import DAMAGED_HINT, file_in
from funasr_cli.families.cmvn import CMVN_FILE, read_cmvn
from funasr_cli.families.family import Download, Family, LoadedModel, NativePart
from funasr_cli.families.sense_voice.config import CAPABILITIES, REQUIRED_TAGS, SenseVoiceConfig, misfits
from funasr_cli.families.sense_voice.layout_funasr import MODEL, RULES, open_funasr
from funasr_cli.families.sense_voice.network import SenseVoice
from funasr_cli.native.networks import NativeCTCHead, NativeSANM
from funasr_cli.options import MAX_SEGMENT_S

if TYPE_CHECKING:
    from funasr_cli.speech_model import SpeechModel

HUB_ID = "FunAudioLLM/SenseVoiceSmall"
# 234 M values: in float32, and converted to bfloat16. Hugging Face has the vocabulary only for SentencePiece.
DOWNLOAD = Download(
    "SenseVoiceSmall", HUB_ID, 937_000_000, 469_000_000, ("torch", "sentencepiece"), CAPABILITIES, MAX_SEGMENT_S,
    (0, 233_000_000),
)  # fmt: skip
WHY_NOT_4_BITS = "4 bits raise its error rate by a tenth"  # transcribe.cpp's model card, LibriSpeech test-clean


def _load(loaded: LoadedModel) -> "SpeechModel":
    from funasr_cli.families.sense_voice.model import SenseVoiceModel

    return SenseVoiceModel(loaded)


def _vocabulary_problems(checkpoint: Checkpoint) -> tuple[tuple[str, str], ...]:
    read_cmvn(checkpoint.files, checkpoint.config.frontend.row_width)
    converted_vocabulary(checkpoint.files, checkpoint.texts, checkpoint.config.vocab_size, REQUIRED_TAGS)
    return ()


FAMILY = Family(
    model_type="sense_voice",
    upstream_classes=(MODEL,),
    title=MODEL,
    aliases={"sensevoice": HUB_ID, "sense-voice-small": HUB_ID},
    config=SenseVoiceConfig,
    misfits=misfits,
    network=SenseVoice,
    load=_load,
    capabilities=lambda _: CAPABILITIES,
    open_funasr=open_funasr,
    rules={funasr.LAYOUT: RULES, FORMAT: SAME},
    files=lambda folder, _: {name: file_in(folder, name, DAMAGED_HINT) for name in (CMVN_FILE, PIECES_FILE)},
    vocabulary_problems=_vocabulary_problems,
    parts=(Part("quantize", "the encoder", ("encoder.", "ctc."), ("8",), WHY_NOT_4_BITS),),
    hub_files=(CMVN_FILE, "*bpe.model", TOKENS_FILE),
    native=(
        NativePart("encoder", NativeSANM, lambda config: config.encoder),
        NativePart("ctc", NativeCTCHead, lambda config: config),
    ),
    modelscope_ids={HUB_ID: "iic/SenseVoiceSmall"},
    downloads={"sensevoice": DOWNLOAD, "sense-voice-small": DOWNLOAD},
)
