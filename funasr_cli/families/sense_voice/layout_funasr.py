"""FunASR's layout of SenseVoiceSmall: ``model.pt``, ``config.yaml``, ``am.mvn`` and a SentencePiece model."""

from pathlib import Path

from funasr_cli.checkpoints import funasr, keymap
from funasr_cli.checkpoints.checkpoint import Checkpoint
from funasr_cli.checkpoints.pickles import read_state_dict
from funasr_cli.checkpoints.pieces import (
    PIECES_FILE,
    read_pieces,
    refuse_other_vocabulary,
    to_text,
    vocabulary_file,
)
from funasr_cli.checkpoints.tensors import usual_dtype
from funasr_cli.checkpoints.values import Options, check_config, require, section, stated_in, value
from funasr_cli.families.cmvn import CMVN_FILE, cmvn_file
from funasr_cli.families.components import frontend_config, plain_encoder_config
from funasr_cli.families.sense_voice.config import REQUIRED_TAGS, SenseVoiceConfig, misfits

MODEL = "SenseVoiceSmall"  # upstream's class
COMPONENTS: Options = {
    "encoder": "SenseVoiceEncoderSmall", "frontend": "WavFrontend", "tokenizer": "SentencepiecesTokenizer",
    "normalize": None,
}  # fmt: skip
TRAINING_ONLY = {"dropout_rate", "ctc_type", "reduce", "ignore_nan_grad"}  # settings of the head
HEAD = "ctc.ctc_lo.weight"
RULES = (keymap.FSMN, *keymap.SAME)


def open_funasr(folder: Path, options: Options, name: str) -> Checkpoint:
    """Open a folder in this layout, given the content of its ``config.yaml``."""
    where = str(folder / funasr.UPSTREAM_CONFIG)
    with stated_in(where):
        for component, supported in COMPONENTS.items():
            require(options, component, supported)
        frontend = frontend_config(section(options, "frontend_conf"))
        encoder = plain_encoder_config(section(options, "encoder_conf"), frontend.row_width)
        blank_id = value(section(options, "model_conf"), "blank_id", 0)
        head = section(options, "ctc_conf")
        for key in head.keys() - TRAINING_ONLY:
            require(head, key, {"extra_linear": True, "blank_id": blank_id}.get(key))
    cmvn, weights, vocabulary = cmvn_file(folder, options), funasr.weights_file(folder), vocabulary_file(folder)
    pieces, stored = read_pieces(vocabulary), read_state_dict(weights)
    tensors = keymap.translate(stored, RULES, str(weights))
    if HEAD in tensors:
        refuse_other_vocabulary(vocabulary, pieces, tensors[HEAD].shape[0], REQUIRED_TAGS)
    config = SenseVoiceConfig(frontend, encoder, len(pieces), blank_id)
    check_config(config, where, misfits)
    return Checkpoint(
        layout=funasr.LAYOUT,
        config=config,
        dtype=usual_dtype(stored),
        tensors=tensors,
        files={CMVN_FILE: cmvn},
        texts={PIECES_FILE: to_text(pieces)},
        weights=(weights,),
    )
