"""Random Paraformer and SenseVoice of the releases' sizes, in FunASR's layout and converted."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import yaml

import funasr_cli
from funasr_cli.benchmarks.synthetic import RELEASE, write_synthetic
from funasr_cli.checkpoints.funasr import PLACES_FILE, UPSTREAM_CONFIG, UPSTREAM_WEIGHTS
from funasr_cli.checkpoints.keymap import FSMN_SUFFIX, model_shapes
from funasr_cli.checkpoints.pieces import TOKENS_FILE
from funasr_cli.families import registry
from funasr_cli.families.cmvn import CMVN_FILE
from funasr_cli.families.components import ENCODER, FRONTEND, stated
from funasr_cli.families.load import load_model
from funasr_cli.families.paraformer.config import CONTROL, ParaformerConfig
from funasr_cli.families.sense_voice.config import EMOTION_TAGS, EVENT_TAGS, LANGUAGE_TAGS, SenseVoiceConfig
from funasr_cli.models.cif import CIFConfig
from funasr_cli.models.sanm import SANMConfig
from funasr_cli.models.sanm_decoder import SANMDecoderConfig

PARAFORMER, SENSE_VOICE, NANO = "paraformer", "sensevoice", "nano"
ENCODER_CONF = {"input_layer": "pe", "pos_enc_class": "SinusoidalPositionEncoder", "normalize_before": True}
BIAS = "predictor.cif_output.bias"  # decides how many tokens there are
PIECES = "random.bpe.model"
WIDTH, VOCABULARIES = 512, {PARAFORMER: 8404, SENSE_VOICE: 25055}


def write_checkpoints(state: Path, clip: Path, tokens: int) -> Path:
    """Write all checkpoints and their conversions, and return the folder; reuse it if it exists.

    Paraformer writes this number of tokens for the clip.
    """
    folder = state / "one-step"
    if folder.is_dir():
        return folder
    unfinished = state / "one-step.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    write_synthetic(unfinished, "full").rename(unfinished / NANO)
    for kind, config in (_paraformer(), _sense_voice()):
        weights = random_weights(config)
        write_funasr(unfinished / f"{kind}-funasr", kind, config, weights)
        convert(unfinished, kind)
        if kind == PARAFORMER:
            weights[BIAS] = bias_for(unfinished / kind, clip, tokens)
            write_funasr(unfinished / f"{kind}-funasr", kind, config, weights)
            convert(unfinished, kind)
    unfinished.rename(folder)
    return folder


def convert(folder: Path, kind: str) -> None:
    """Convert a checkpoint of the folder."""
    funasr_cli.convert(folder / f"{kind}-funasr", folder / kind, verify="off", force=True)


def _paraformer() -> tuple[str, ParaformerConfig]:
    encoder = SANMConfig(560, WIDTH, 4, 2048, blocks=50, tp_blocks=0, memory_taps=11, memory_shift=0)
    decoder = SANMDecoderConfig(WIDTH, 4, 2048, 16, 11, 0, VOCABULARIES[PARAFORMER])
    return PARAFORMER, ParaformerConfig(RELEASE.frontend, encoder, CIFConfig(WIDTH, 0.45, None), decoder, None)


def _sense_voice() -> tuple[str, SenseVoiceConfig]:
    return SENSE_VOICE, SenseVoiceConfig(RELEASE.frontend, RELEASE.encoder, VOCABULARIES[SENSE_VOICE], 0)


def random_weights(config: Any) -> dict[str, np.ndarray]:
    """Draw tensors that keep a deep network finite, under FunASR's names and axes."""
    draw, weights = np.random.default_rng(0), {}
    for name, shape in model_shapes(registry.of_config(config).network(config)).items():
        values: np.ndarray = draw.standard_normal(shape, np.float32)
        if "norm" in name:
            values = values * np.float32(0.1) + (1 if name.endswith("weight") else 0)
        elif len(shape) == 1:
            values *= np.float32(0.1)
        elif name.endswith(FSMN_SUFFIX):
            values = values.swapaxes(-1, -2) / np.float32(shape[1])
        else:
            values /= np.float32(np.sqrt(np.prod(shape[1:])))
        weights[name] = values
    return weights


def bias_for(model: Path, clip: Path, tokens: int) -> np.ndarray:
    """Find the bias (1,) with which the model writes this number of tokens, by bisection."""
    loaded: Any = load_model(model, "float32", "mlx")
    samples, _ = soundfile.read(clip, dtype="float32")
    [hidden] = loaded.hidden([loaded.features(samples)])
    predictor, (low, high) = loaded.network.predictor, (-20.0, 20.0)
    for _ in range(50):
        middle = (low + high) / 2
        predictor.cif_output._arrays["bias"] = np.array([middle], np.float32)
        is_low = predictor(hidden).weights.sum() < tokens + 0.5
        low, high = (middle, high) if is_low else (low, middle)
    return np.array([low], np.float32)


def sentencepiece_model(texts: list[str]) -> bytes:
    """Return a SentencePiece model with these pieces."""
    from sentencepiece import sentencepiece_model_pb2 as protobuf

    model = protobuf.ModelProto()
    for number, text in enumerate(texts):
        kind = {0: 2, 1: 3, 2: 3}.get(number, 4 if text.startswith("<|") else 1)  # unknown, control; tag, normal
        model.pieces.append(protobuf.ModelProto.SentencePiece(piece=text, score=-number, type=kind))
    model.trainer_spec.model_type, model.trainer_spec.vocab_size = 2, len(texts)  # BPE
    model.normalizer_spec.add_dummy_prefix = False
    content: bytes = model.SerializeToString()
    return content


def write_funasr(folder: Path, kind: str, config: Any, weights: Mapping[str, np.ndarray]) -> None:
    """Write a checkpoint in FunASR's layout."""
    import torch

    folder.mkdir(exist_ok=True)
    tensors = {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in weights.items()}
    options: dict[str, Any] = {
        "frontend": "WavFrontend",
        "frontend_conf": stated(config.frontend, FRONTEND),
        "encoder_conf": {**stated(config.encoder, ENCODER), **ENCODER_CONF, "selfattention_layer_type": "sanm"},
    }
    if kind == PARAFORMER:
        decoder, texts = config.decoder, [*CONTROL, *map(chr, range(0x4E00, 0x4E00 + 8400)), "<unk>"]
        tensors["decoder.embed.0.weight"] = torch.zeros(len(texts), WIDTH)  # FunASR needs it, and does not use it
        options["encoder_conf"].pop("tp_blocks")
        options |= {
            "model": "Paraformer", "encoder": "SANMEncoder", "decoder": "ParaformerSANMDecoder",
            "model_conf": {"ctc_weight": 0.0, "predictor_bias": 1},
            "decoder_conf": {
                "attention_heads": decoder.heads, "linear_units": decoder.ffn_dim, "num_blocks": decoder.layers,
                "att_layer_num": decoder.layers, "kernel_size": decoder.memory_taps, "sanm_shfit": 0,
            },
            "predictor": "CifPredictorV2",
            "predictor_conf": {
                "idim": WIDTH, "threshold": 1.0, "l_order": 1, "r_order": 1,
                "tail_threshold": config.predictor.tail_threshold,
            },
            "tokenizer": "CharTokenizer", "tokenizer_conf": {"unk_symbol": "<unk>", "split_with_space": True},
        }  # fmt: skip
        named = {"token_list": TOKENS_FILE}
    else:
        tags = [f"<|{tag}|>" for tag in (*LANGUAGE_TAGS, *EMOTION_TAGS, *EVENT_TAGS, "withitn", "woitn")]
        letters = map(chr, range(0x4E00, 0x4E00 + VOCABULARIES[kind] - 4 - len(tags)))
        texts = ["<unk>", "<s>", "</s>", "▁", *letters, *tags]
        options |= {
            "model": "SenseVoiceSmall", "encoder": "SenseVoiceEncoderSmall",
            "tokenizer": "SentencepiecesTokenizer",
            "model_conf": {"length_normalized_loss": True, "sos": 1, "eos": 2, "ignore_id": -1},
            "tokenizer_conf": {"bpemodel": None, "unk_symbol": "<unk>", "split_with_space": True},
        }  # fmt: skip
        named = {"bpemodel": PIECES}
        (folder / PIECES).write_bytes(sentencepiece_model(texts))
    torch.save({"state_dict": tensors}, folder / UPSTREAM_WEIGHTS)
    (folder / TOKENS_FILE).write_text(json.dumps(texts, ensure_ascii=False), encoding="utf-8")
    (folder / UPSTREAM_CONFIG).write_text(yaml.safe_dump(options), encoding="utf-8")
    row, zeros, ones = config.frontend.row_width, " ".join(["-9"] * 560), " ".join(["0.2"] * 560)
    (folder / CMVN_FILE).write_text(
        f"<Nnet> \n<Splice> {row} {row} \n[ 0 ]\n<AddShift> {row} {row} \n<LearnRateCoef> 0 [ {zeros} ]\n"
        f"<Rescale> {row} {row} \n<LearnRateCoef> 0 [ {ones} ]\n</Nnet> \n", encoding="utf-8",
    )  # fmt: skip
    metas = {
        "init_param": UPSTREAM_WEIGHTS, "config": UPSTREAM_CONFIG, "tokenizer_conf": named,
        "frontend_conf": {"cmvn_file": CMVN_FILE},
    }  # fmt: skip
    (folder / PLACES_FILE).write_text(json.dumps({"file_path_metas": metas}), encoding="utf-8")
