"""The `Family` of Paraformer."""

from typing import TYPE_CHECKING

from funasr_cli.checkpoints import funasr
from funasr_cli.checkpoints.checkpoint import Checkpoint
from funasr_cli.checkpoints.format import FORMAT
from funasr_cli.checkpoints.keymap import SAME
from funasr_cli.checkpoints.pieces import PIECES_FILE, TOKENS_FILE, read_spelling
from funasr_cli.checkpoints.quantize import Part
from funasr_cli.checkpoints.untrusted import DAMAGED_HINT, file_in
from funasr_cli.families.cmvn import CMVN_FILE, read_cmvn
from funasr_cli.families.family import Download, Family, LoadedModel, NativePart
from funasr_cli.families.paraformer.config import PLAIN, ParaformerConfig, capabilities, misfits
from funasr_cli.families.paraformer.layout_funasr import RULES, SPELLING_FILE, UPSTREAM_CLASSES, open_funasr
from funasr_cli.models.paraformer import Paraformer
from funasr_cli.native.networks import NativePlainSANM
from funasr_cli.native.sanm_decoder import NativeSANMDecoder

if TYPE_CHECKING:
    from funasr_cli.speech_model import SpeechModel

HUB_ID = "funasr/paraformer-zh"
# 220 M values in float32. Converted, it lacks the 4 M of its embedding, and the rest is bfloat16.
DOWNLOAD = Download("Paraformer", HUB_ID, 881_000_000, 434_000_000, ("torch",), PLAIN)
MATRICES = ("encoder.", "decoder.", "seaco_decoder.", "hotword_output_layer.")
WHY_NOT_4_BITS = "its accuracy in 4 bits has not been measured"


def _network(config: ParaformerConfig) -> Paraformer:
    seaco = config.hotwords.decoder if config.hotwords else None
    return Paraformer(config.encoder, config.predictor, config.decoder, seaco)


def _load(loaded: LoadedModel) -> "SpeechModel":
    from funasr_cli.families.paraformer.model import ParaformerModel

    return ParaformerModel(loaded)


def _vocabulary_problems(checkpoint: Checkpoint) -> tuple[tuple[str, str], ...]:
    from funasr_cli.families.paraformer.model import read_vocabulary

    read_cmvn(checkpoint.files, checkpoint.config.frontend.row_width)
    tokens = read_vocabulary(checkpoint.files, checkpoint.texts, checkpoint.config)
    if spelling := checkpoint.files.get(SPELLING_FILE):
        read_spelling(spelling, tokens)
    return ()


FAMILY = Family(
    model_type="paraformer",
    upstream_classes=UPSTREAM_CLASSES,
    title="Paraformer",
    aliases={"paraformer": HUB_ID, "paraformer-zh": HUB_ID},
    config=ParaformerConfig,
    misfits=misfits,
    network=_network,
    load=_load,
    capabilities=capabilities,
    open_funasr=open_funasr,
    rules={funasr.LAYOUT: RULES, FORMAT: SAME},
    files=lambda folder, config: {
        name: file_in(folder, name, DAMAGED_HINT)
        for name in (CMVN_FILE, PIECES_FILE, *([SPELLING_FILE] if config.hotwords else []))
    },
    vocabulary_problems=_vocabulary_problems,
    parts=(Part("quantize", "the encoder", MATRICES, ("8",), WHY_NOT_4_BITS),),
    exact=("predictor.", "bias_encoder."),
    hub_files=(CMVN_FILE, TOKENS_FILE, SPELLING_FILE),
    native=(
        NativePart("encoder", NativePlainSANM, lambda config: config.encoder),
        NativePart("decoder", NativeSANMDecoder, lambda config: config.decoder),
        NativePart("seaco_decoder", NativeSANMDecoder, lambda config: config.hotwords and config.hotwords.decoder),
    ),
    modelscope_ids={HUB_ID: "iic/speech_seaco_paraformer_large_asr_nat-zh-cn-16k-common-vocab8404-pytorch"},
    downloads={"paraformer": DOWNLOAD, "paraformer-zh": DOWNLOAD},
)
