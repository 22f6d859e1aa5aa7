"""FunASR's layout of CT-Transformer: ``model.pt``, ``config.yaml`` and ``tokens.json``."""

from pathlib import Path

from funasr_cli.checkpoints import funasr, keymap
from funasr_cli.checkpoints.checkpoint import Checkpoint
from funasr_cli.checkpoints.pickles import read_state_dict
from funasr_cli.checkpoints.pieces import TOKENS_FILE
from funasr_cli.checkpoints.tensors import usual_dtype
from funasr_cli.checkpoints.untrusted import file_in, optional_file_in
from funasr_cli.checkpoints.values import Options, check_config, require, section, stated_in, value
from funasr_cli.families.components import plain_encoder_config
from funasr_cli.families.ct_punc.config import STOP, CTPuncConfig, misfits
from funasr_cli.families.ct_punc.vocabulary import read_vocabulary

MODEL = "CTTransformer"  # upstream's class
WORDS_FILE = "jieba_usr_dict"
WORDS_NOTE = (
    "FunASR cuts Chinese into words for this checkpoint with jieba; here, they are the longest in tokens.json"
)
RULES = (keymap.FSMN, *keymap.SAME)


def open_funasr(folder: Path, options: Options, name: str) -> Checkpoint:
    """Open a folder in this layout, given the content of its ``config.yaml``."""
    where = str(folder / funasr.UPSTREAM_CONFIG)
    with stated_in(where):
        require(options, "encoder", "SANMEncoder")
        require(options, "tokenizer", "CharTokenizer", default="CharTokenizer")
        model, conf = section(options, "model_conf"), section(options, "encoder_conf")
        labels = tuple(value({"punc_list": label}, "punc_list", str) for label in model["punc_list"])
        for key in ("embed_unit", "att_unit"):
            require(model, key, conf.get("output_size"))
        encoder = plain_encoder_config(conf, value(conf, "input_size", int))
        if STOP in labels:
            require(model, "sentence_end_id", labels.index(STOP), default=3)
    words = optional_file_in(folder, funasr.stated_file(folder, WORDS_FILE) or WORDS_FILE)
    listed = funasr.stated_file(folder, "tokenizer_conf", "token_list") or TOKENS_FILE
    tokens, weights = file_in(folder, listed), funasr.weights_file(folder)
    stored = read_state_dict(weights)
    config = CTPuncConfig(encoder, len(read_vocabulary(tokens)), labels, words is not None)
    check_config(config, where, misfits)
    return Checkpoint(
        layout=funasr.LAYOUT,
        config=config,
        dtype=usual_dtype(stored),
        tensors=keymap.translate(stored, RULES, str(weights)),
        files={TOKENS_FILE: tokens},
        weights=(weights,),
        notes=(WORDS_NOTE,) if words else (),
    )
