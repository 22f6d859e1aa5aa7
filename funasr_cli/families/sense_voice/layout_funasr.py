"""FunASR's layout of SenseVoiceSmall: ``model.pt``, ``config.yaml``, ``am.mvn`` and a SentencePiece model."""

from pathlib import Path

from funasr_cli.checkpoints import funasr, keymap
from funasr_cli.checkpoints.checkpoint import Checkpoint
from funasr_cli.checkpoints.pickles import read_state_dict
from funasr_cli.checkpoints.pieces import PIECES_FILE, pieces_in, to_text
from funasr_cli.checkpoints.tensors import usual_dtype
from funasr_cli.checkpoints.values import Options, check_config, require, section, stated_in, value
from funasr_cli.families.cmvn import CMVN_FILE, cmvn_file
from funasr_cli.families.components import encoder_config, frontend_config
from funasr_cli.families.sense_voice.config import SenseVoiceConfig, misfits

MODEL = "SenseVoiceSmall"  # what upstream calls its class
COMPONENTS: Options = {
    "encoder": "SenseVoiceEncoderSmall", "frontend": "WavFrontend", "tokenizer": "SentencepiecesTokenizer",
    "normalize": None,
}  # fmt: skip
ENCODER: Options = {"input_layer": "pe", "normalize_before": True, "selfattention_layer_type": "sanm"}
RULES = (keymap.FSMN, *keymap.SAME)


def open_funasr(folder: Path, options: Options, name: str) -> Checkpoint:
    """Open a folder in this layout, whose ``config.yaml`` says this."""
    where = str(folder / funasr.UPSTREAM_CONFIG)
    with stated_in(where):
        for component, supported in COMPONENTS.items():
            require(options, component, supported)
        conf = section(options, "encoder_conf")
        for key, supported in ENCODER.items():
            require(conf, key, supported, default=supported)
        frontend = frontend_config(section(options, "frontend_conf"))
        encoder = encoder_config(conf, frontend.row_width)
        blank_id = value(section(options, "model_conf"), "blank_id", 0)
    weights = funasr.weights_file(folder)
    cmvn, pieces = cmvn_file(folder, options), pieces_in(folder)
    config = SenseVoiceConfig(frontend, encoder, len(pieces), blank_id)
    check_config(config, where, misfits)
    stored = read_state_dict(weights)
    return Checkpoint(
        layout=funasr.LAYOUT,
        config=config,
        dtype=usual_dtype(stored),
        tensors=keymap.translate(stored, RULES, str(weights)),
        files={CMVN_FILE: cmvn},
        texts={PIECES_FILE: to_text(pieces)},
        weights=(weights,),
    )
