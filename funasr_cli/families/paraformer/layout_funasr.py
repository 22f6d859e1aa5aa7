"""FunASR's layout of Paraformer: ``model.pt``, ``config.yaml``, ``am.mvn``, ``tokens.json`` and ``seg_dict``.

The tensors, not the names, decide what a model can do: on Hugging Face and on ModelScope, ``paraformer-zh`` is not
the same model.
"""

from pathlib import Path

from funasr_cli.checkpoints import funasr, keymap
from funasr_cli.checkpoints.checkpoint import Checkpoint
from funasr_cli.checkpoints.keymap import Rule
from funasr_cli.checkpoints.pickles import read_state_dict
from funasr_cli.checkpoints.pieces import PIECES_FILE, TOKENS_FILE, read_tokens, refuse_other_vocabulary, to_text
from funasr_cli.checkpoints.tensors import usual_dtype
from funasr_cli.checkpoints.untrusted import file_in
from funasr_cli.checkpoints.values import Misstated, Options, check_config, require, section, stated_in, value
from funasr_cli.checkpoints.vocabularies import VOCABULARY_HINT
from funasr_cli.errors import ModelError
from funasr_cli.families.cmvn import CMVN_FILE, cmvn_file
from funasr_cli.families.components import decoder_config, frontend_config, plain_encoder_config, predictor_config
from funasr_cli.families.paraformer.config import CONTROL, HotwordConfig, ParaformerConfig, misfits
from funasr_cli.families.paraformer.text import UNKNOWN

CONTEXTUAL, STREAMING = "ContextualParaformer", "ParaformerStreaming"
UPSTREAM_CLASSES = ("Paraformer", "BiCifParaformer", "SeacoParaformer", CONTEXTUAL, STREAMING)
SPELLING_FILE = "seg_dict"
COMPONENTS: Options = {
    "encoder": "SANMEncoder", "frontend": "WavFrontend", "decoder": "ParaformerSANMDecoder", "normalize": None,
}  # fmt: skip
BIAS_ENCODER: Options = {"bias_encoder_type": "lstm", "bias_encoder_bid": False}
NO_BIAS = 8377  # where model_conf does not state it
# A tensor of each kind of model, with upstream's names.
BIAS_DECODER = "decoder.bias_decoder."
UPSAMPLED = "predictor.upsample_cnn.weight"
SEACO = "bias_encoder.weight_ih_l1"
EMBEDDING, HEAD = "decoder.embed.0.weight", "decoder.output_layer.weight"
RULES = (keymap.FSMN, Rule(EMBEDDING, "hotword_embed.weight", "omitted without hotwords"), *keymap.SAME)


def open_funasr(folder: Path, options: Options, name: str) -> Checkpoint:
    """Open a folder in this layout, given the content of its ``config.yaml``."""
    where = str(folder / funasr.UPSTREAM_CONFIG)
    with stated_in(where):
        _refuse_others(options)
    weights = funasr.weights_file(folder)
    stored = read_state_dict(weights)
    if any(tensor.startswith(BIAS_DECODER) for tensor in stored):
        raise _unsupported(f"{weights}: a {CONTEXTUAL}", CONTEXTUAL)
    has_hotwords = SEACO in stored
    if not has_hotwords:
        stored.pop(EMBEDDING, None)  # needed only in training
    listed = funasr.stated_file(folder, "tokenizer_conf", "token_list") or TOKENS_FILE
    tokens_path = file_in(folder, listed, VOCABULARY_HINT)
    tokens = read_tokens(tokens_path)
    if HEAD in stored:
        refuse_other_tokens(tokens_path, tokens, stored[HEAD].shape[0])
    with stated_in(where):
        frontend = frontend_config(section(options, "frontend_conf"))
        encoder = plain_encoder_config(section(options, "encoder_conf"), frontend.row_width, None)
        config = ParaformerConfig(
            frontend=frontend,
            encoder=encoder,
            predictor=predictor_config(section(options, "predictor_conf"), has_times=UPSAMPLED in stored),
            decoder=decoder_config(section(options, "decoder_conf"), encoder.width, len(tokens)),
            hotwords=_hotwords(options, encoder.width) if has_hotwords else None,
        )
    check_config(config, where, misfits)
    files = {CMVN_FILE: cmvn_file(folder, options)}
    if has_hotwords:
        stated = funasr.stated_file(folder, "tokenizer_conf", "seg_dict_file") or SPELLING_FILE
        files[SPELLING_FILE] = file_in(folder, stated, "hotwords are spelled with this file: copy it as well")
    return Checkpoint(
        layout=funasr.LAYOUT,
        config=config,
        dtype=usual_dtype(stored),
        tensors=keymap.translate(stored, RULES, str(weights)),
        files=files,
        texts={PIECES_FILE: to_text(tokens)},
        weights=(weights,),
    )


def refuse_other_tokens(path: object, tokens: list[str], outputs: int) -> None:
    """Raise a `ModelError` for a vocabulary of another size, or without the control tokens."""
    refuse_other_vocabulary(path, tokens, outputs, ())
    if tuple(tokens[: len(CONTROL)]) != CONTROL or UNKNOWN not in tokens:
        what = f"does not begin with {' '.join(CONTROL)}, or lacks {UNKNOWN}"
        raise ModelError(f"{path}: {what}", VOCABULARY_HINT, code="tokenizer-mismatch")


def _refuse_others(options: Options) -> None:
    """Refuse the other models of these classes, with the reason, and variants that no release has."""
    if options.get("model") == STREAMING or options.get("encoder") == "SANMEncoderChunkOpt":
        raise _unsupported("weights for streaming", STREAMING)
    if options.get("model") == CONTEXTUAL:
        raise _unsupported(f"a {CONTEXTUAL}", CONTEXTUAL)
    if options.get("tokenizer") == "SentencepiecesTokenizer":
        raise _unsupported("an English Paraformer", "English")
    require(options, "tokenizer", "CharTokenizer")
    for component, supported in COMPONENTS.items():
        require(options, component, supported)


WHY_NOT = {
    STREAMING: ("they were trained on short pieces of audio", "paraformer-zh is the model for whole recordings"),
    CONTEXTUAL: ("its hotword network is not supported", "paraformer-zh on ModelScope replaces it: --hub ms"),
    "English": ("its tokens are not supported", "use sensevoice, nano or a Whisper model for English"),
}


def _unsupported(what: str, kind: str) -> Misstated:
    reason, hint = WHY_NOT[kind]
    return Misstated(f"{what}: {reason}", hint, code="model-unsupported")


def _hotwords(options: Options, width: int) -> HotwordConfig:
    conf, seaco = section(options, "model_conf"), section(options, "seaco_decoder_conf")
    for key, supported in BIAS_ENCODER.items():
        require(conf, key, supported, default=supported)
    return HotwordConfig(decoder_config(seaco, width, None), value(conf, "NO_BIAS", NO_BIAS))
