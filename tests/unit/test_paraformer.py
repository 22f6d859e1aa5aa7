"""Paraformer: the text of tokens, hotwords, what a session returns, and folders in FunASR's layout.

Numerical results: tests/parity/test_paraformer_parity.py.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from support.errors import refused
from support.native import LIBRARY, WITHOUT
from support.paraformer import SIZES, SPELLING_FILE, ParaformerSpec, token_texts, write_paraformer
from support.sense_voice import CMVN_FILE, TOKENS_FILE
from support.small import convert, edit_json, edit_tensors, once

from funasr_cli.audio.segment import AudioSegment
from funasr_cli.capabilities import refuse_unsupported
from funasr_cli.checkpoints.format import SUMS_FILE, WEIGHTS_FILE, read_sums, sha256_of
from funasr_cli.checkpoints.pieces import PIECES_FILE
from funasr_cli.checkpoints.tensors import open_safetensors
from funasr_cli.compute.backend import mx, nn
from funasr_cli.families import registry
from funasr_cli.families.load import load_model
from funasr_cli.families.paraformer.model import ParaformerModel
from funasr_cli.families.paraformer.text import NO_TEXT, OPEN, hotword_ids, spell
from funasr_cli.hubs.repository import wanted
from funasr_cli.options import TranscribeOptions
from funasr_cli.pipeline import Recognizer
from funasr_cli.speech_model import SegmentRequest
from funasr_cli.transcript import STAGES, Segment
from funasr_cli.units import word_spans
from funasr_cli.verification.check import check_model

SMALL = dataclasses.replace(SIZES, encoder_dim=64, encoder_ffn_dim=64, encoder_blocks=2)
TEXTS = token_texts()
OPTIONS = TranscribeOptions(word_times=True, confidence=True)
SAMPLES = soundfile.read(Path(__file__).parents[1] / "data/zh-6s.wav", dtype="float32")[0][8000:40000]


def source_of(factory: pytest.TempPathFactory, kind: str) -> Path:
    spec = ParaformerSpec(kind, SMALL, decoder_layers=2)
    return once(factory, f"small-paraformer-{kind}", lambda folder: write_paraformer(folder, spec))


def converted_of(factory: pytest.TempPathFactory, kind: str) -> Path:
    source = source_of(factory, kind)
    return once(factory, f"small-paraformer-{kind}-mlx", lambda folder: convert(source, folder, dtype="float32"))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SeACo checkpoint in FunASR's layout. Do not change it."""
    return source_of(tmp_path_factory, "seaco")


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`source` converted in float32. Do not change it."""
    return converted_of(tmp_path_factory, "seaco")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A converted plain Paraformer. Do not change it."""
    return converted_of(tmp_path_factory, "plain")


@pytest.fixture
def checkpoint(source: Path, tmp_path: Path) -> Path:
    """A copy of `source` to damage."""
    return shutil.copytree(source, tmp_path / "Paraformer")


@pytest.fixture
def model(converted: Path) -> ParaformerModel:
    """A model that a test may modify."""
    return load(converted)


def load(folder: Path, dtype: str = "float32") -> ParaformerModel:
    found = load_model(folder, dtype)
    assert isinstance(found, ParaformerModel)
    return found


# --- text ---


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        ("你 好 hel@@ lo a b 世 界 micro@@ phone 1 2", "你好hello AB世界microphone12"),
        ("a b c", "ABC"),
        ("a 你 b", "a你b"),
        ("a b 你 c", "AB你c"),
        ("it 's ok", "it 's ok"),
        ("the a b there", "the AB there"),
        ("the 1", "the1"),
        ("mp@@ 3 好", "mp3好"),
        ("x@@ y a", "xy a"),
        ("<s> 你 <unk> 好 </s>", "你好"),
        ("lo hel@@", "lo hel"),  # upstream loses the open piece
        ("hel@@ 你 lo", "hel你lo"),  # upstream writes 你hello
        ("答 案 1 . 5 好", "答案1.5好"),
        ("lo . 好", "lo.好"),  # upstream loses the full stop
        ("@@", ""),
        ("", ""),
    ],
)
def test_the_text_of_tokens(tokens: str, text: str) -> None:
    assert spell(tokens.split())[0] == text


@given(st.lists(st.sampled_from([*TEXTS, "q@@", "1@@", "の", "é", "@@", "%"]), max_size=30))
def test_no_token_is_lost(tokens: list[str]) -> None:
    """Each character of the text but spaces is one of its token's, in order, and so is each of a token's."""
    text, sources = spell(tokens)
    assert len(sources) == len(text)
    assert sources == sorted(sources)
    for number, token in enumerate(tokens):
        own = "".join(char for char, source in zip(text, sources, strict=True) if source == number)
        expected = "" if token in NO_TEXT else token.removesuffix(OPEN)
        assert own.strip().lower() == expected.lower()


SPELLING = {"hello": ["hel@@", "lo"], "你": ["你"], "世": ["世"], "rare": ["ra@@", "re"]}


@pytest.mark.parametrize(
    ("hotword", "tokens"),
    [
        ("Hello", "hel@@ lo"), ("世界", "世 界"), ("hello 你好", "hel@@ lo 你 好"),
        ("Hello世界", "hel@@ lo 世 界"),
        ("the", "the"), ("12", "1 2"),
    ],
)  # fmt: skip
def test_hotwords_are_spelled(hotword: str, tokens: str) -> None:
    ids = {text: number for number, text in enumerate(TEXTS)}
    assert [TEXTS[token_id] for token_id in hotword_ids(hotword, SPELLING, ids)] == tokens.split()


@pytest.mark.parametrize("hotword", ["kubernetes", "龙", "rare", "你kube", " ", "<unk>", "</s>"])
def test_hotwords_that_cannot_be_spelled(model: ParaformerModel, hotword: str) -> None:
    """Upstream looks for <unk> in their place."""
    with refused("prompt-text", hotword):
        model.session(TranscribeOptions(hotwords=("你好", hotword)))
    with refused("prompt-text", hotword):  # before a request joins the rows of others
        model.prompt(TranscribeOptions(hotwords=("你好", hotword)))


# --- sessions ---


def decode(model: ParaformerModel, options: TranscribeOptions, samples: np.ndarray = SAMPLES) -> Segment:
    session = model.session(options)
    session.add([SegmentRequest(0, AudioSegment(8000, samples, np.ones(62)), first=True, retries=1)])
    [update] = session.step()
    assert update.hypothesis
    return update.hypothesis.segment


def test_a_segment(model: ParaformerModel) -> None:
    segment = decode(model, OPTIONS)
    assert (segment.start_s, segment.end_s, segment.retries, segment.stop_reason) == (0.5, 2.5, 1, "eos")
    assert segment.text
    assert segment.tokens >= len(segment.words) > 2
    assert segment.mean_logprob is not None
    assert segment.mean_logprob < 0
    assert "".join(score.text for score in segment.scores) == segment.text
    assert [word.text.strip() for word in segment.words] == [
        segment.text[slice(*span)] for span in word_spans(segment.text)
    ]
    times_s = [time_s for word in segment.words for time_s in (word.start_s, word.end_s)]
    assert times_s == sorted(times_s)
    assert segment.start_s <= times_s[0] <= times_s[-1] <= segment.end_s
    assert all(word.score and 0 < word.score <= 1 for word in segment.words)


def test_options_do_not_change_the_text(model: ParaformerModel) -> None:
    """In particular times, with which upstream puts spaces between characters."""
    bare = decode(model, TranscribeOptions())
    assert bare.text == decode(model, OPTIONS).text
    assert (bare.words, bare.scores) == ((), ())


def test_hotwords_change_the_text(model: ParaformerModel) -> None:
    """They are of a request, not of the model."""
    hotword = TranscribeOptions(hotwords=("世界", "hello"))
    before, after = decode(model, TranscribeOptions()), decode(model, hotword)
    assert before.text != after.text
    assert decode(model, TranscribeOptions()) == before


def test_nothing_fires(model: ParaformerModel) -> None:
    """The segment is complete, without text, alone and next to others."""
    spoken = decode(model, OPTIONS)
    own = model.network.predictor._weights
    model.network.predictor._weights = lambda hidden: own(hidden) * (len(hidden) > 20)
    session = model.session(OPTIONS)
    requests = [
        SegmentRequest(0, AudioSegment(8000, samples, np.ones(62)), first=True, retries=1)
        for samples in (SAMPLES, SAMPLES[:16000])
    ]
    session.add(requests)
    segments = [update.hypothesis.segment for update in session.step() if update.hypothesis]
    assert segments[0] == dataclasses.replace(spoken, scores=segments[0].scores, words=segments[0].words,
                                              mean_logprob=segments[0].mean_logprob)  # fmt: skip
    for segment in (segments[1], decode(model, OPTIONS, SAMPLES[:16000])):
        assert (segment.text, segment.words, segment.scores, segment.tokens) == ("", (), (), 0)
        assert (segment.stop_reason, segment.mean_logprob) == ("eos", None)


def test_values_that_are_not_finite(model: ParaformerModel) -> None:
    model.network.encoder.after_norm.weight = mx.full((SMALL.encoder_dim,), float("nan"))
    segment = decode(model, OPTIONS)
    assert (segment.text, segment.stop_reason) == ("", "nonfinite")


def test_forced_tokens_set_their_number(model: ParaformerModel) -> None:
    own = model.trace(SAMPLES, TranscribeOptions())
    assert len(own.logits) == len(own.token_ids) > 3
    assert np.array_equal(model.trace(SAMPLES, TranscribeOptions(), own.token_ids).logits, own.logits)
    assert len(model.trace(SAMPLES, TranscribeOptions(), [0, 0, 0]).logits) == 3


def test_it_has_no_ctc_output(model: ParaformerModel) -> None:
    with refused("ctc-missing", model.name):
        model.read_ctc(SAMPLES)
    assert model.encode(SAMPLES).frames.shape == (33, SMALL.encoder_dim)


@pytest.mark.parametrize(
    "options",
    [TranscribeOptions(word_times=True), TranscribeOptions(hotwords=("你",)), TranscribeOptions(language="ja")],
)
def test_what_a_plain_model_lacks(plain: Path, converted: Path, options: TranscribeOptions) -> None:
    """SeACo has times and hotwords."""
    found = load(plain)
    with refused(("option-unsupported", "language-unknown")[options.language is not None], found.name):
        refuse_unsupported(options, found.capabilities, found.name)
    if options.language is None:
        seaco = load(converted)
        refuse_unsupported(options, seaco.capabilities, seaco.name)


def test_a_recording(model: ParaformerModel, zh_wav: Path) -> None:
    """Everything is in the ledger, and the stages in the timings."""
    speech, rate_hz = soundfile.read(zh_wav, dtype="float32")
    transcript = Recognizer(model).transcribe(speech, OPTIONS, sample_rate_hz=rate_hz)
    assert min(transcript.timings.features_s, transcript.timings.encoder_s, transcript.timings.decode_s) > 0
    assert transcript.text
    assert {"features", "encoder", "decode"} <= {*STAGES}
    ledger = transcript.ledger
    heard_s = ledger.transcribed_s + ledger.repaired_s + ledger.failed_s + ledger.silence_s
    assert heard_s == pytest.approx(len(speech) / rate_hz, abs=1e-3)


@pytest.mark.skipif(LIBRARY is None, reason=WITHOUT)
def test_the_native_engine(converted: Path, model: ParaformerModel) -> None:
    """It computes the encoder and both decoders; what finds the tokens is the same."""
    options = TranscribeOptions(hotwords=("世界", "hello"), word_times=True)
    wanted = model.trace(SAMPLES, options)
    for dtype in ("int8", "float32"):
        found = load_model(converted, dtype, "native")
        assert isinstance(found, ParaformerModel)
        assert found.engine.startswith("native ")
        trace = found.trace(SAMPLES, options, wanted.token_ids)
        assert np.corrcoef(trace.logits.ravel(), wanted.logits.ravel())[0, 1] > 0.99
        assert decode(found, options).words
    assert np.abs(trace.logits - wanted.logits).max() < 1e-3
    assert decode(found, options).text == decode(model, options).text
    many = TranscribeOptions(hotwords=tuple(a + b for a in "你好世界今天气很" for b in "不错我们开始语音"))
    assert decode(found, many).text == decode(model, many).text


# --- folders ---


def test_files_of_a_conversion(source: Path, converted: Path, plain: Path) -> None:
    for name in (CMVN_FILE, SPELLING_FILE):
        assert (converted / name).read_bytes() == (source / name).read_bytes()
    assert json.loads((converted / PIECES_FILE).read_text(encoding="utf-8")) == {"pieces": TEXTS}
    assert not (plain / SPELLING_FILE).exists()
    assert "decoder.embed.0.weight" not in open_safetensors(plain / WEIGHTS_FILE)


def test_the_tensors_decide(source: Path, checkpoint: Path, tmp_path: Path) -> None:
    """On the two hubs, one name stands for two models."""
    for kind in ("Paraformer", "BiCifParaformer"):
        edit_yaml(checkpoint / "config.yaml", lambda content, kind=kind: content.update(model=kind))
        config = convert(checkpoint, tmp_path / f"{kind}-out").model.config
        assert config.hotwords is not None
        assert config.predictor.times is not None


def test_what_finds_the_tokens_is_never_rounded(source: Path, tmp_path: Path) -> None:
    convert(source, tmp_path / "out", quantize="8")
    types = {name: tensor.dtype for name, tensor in open_safetensors(tmp_path / "out" / WEIGHTS_FILE).items()}
    exact = {name for name in types if name.startswith(("predictor.", "bias_encoder."))}
    assert len(exact) == 4 + 2 + 8 + 2 + 8
    assert {types[name] for name in exact} == {"float32"}
    assert {types[name] for name in types.keys() - exact} == {"bfloat16", "uint32"}
    for dtype in ("float32", "stored", "bfloat16"):
        found = load(tmp_path / "out", dtype)
        weight = found.network.predictor.cif_conv1d["weight"]
        assert weight.dtype == mx.float32
        original = torch.load(source / "model.pt", weights_only=True)["state_dict"]["predictor.cif_conv1d.weight"]
        assert np.array_equal(np.array(weight), original.numpy())
        quantized = [part for _, part in found.network.named_modules() if isinstance(part, nn.QuantizedLinear)]
        assert bool(quantized) == (dtype == "stored")
        assert decode(found, TranscribeOptions(hotwords=("世界",), word_times=True)).words


def edit_yaml(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(yaml.safe_dump(content), encoding="utf-8")


CONFIGS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "streaming": lambda content: content.update(model="ParaformerStreaming", encoder="SANMEncoderChunkOpt"),
    "an encoder for streaming": lambda content: content.update(encoder="SANMEncoderChunkOpt"),
    "contextual": lambda content: content.update(model="ContextualParaformer"),
    "English": lambda content: content.update(tokenizer="SentencepiecesTokenizer"),
    "another front end": lambda content: content.update(frontend="WavFrontendOnline"),
    "another decoder": lambda content: content.update(decoder="ContextualParaformerDecoder"),
    "another input layer": lambda content: content["encoder_conf"].update(input_layer="conv2d"),
    "an unstated input layer": lambda content: content["encoder_conf"].pop("input_layer"),
    "another threshold": lambda content: content["predictor_conf"].update(threshold=0.9),
    "more context": lambda content: content["predictor_conf"].update(l_order=2),
    "other upsampling": lambda content: content["predictor_conf"].update(upsample_type="cnn"),
    "another bias encoder": lambda content: content["model_conf"].update(bias_encoder_type="mean"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_variants_that_are_not_supported(checkpoint: Path, tmp_path: Path, name: str) -> None:
    edit_yaml(checkpoint / "config.yaml", CONFIGS[name])
    with refused("model-unsupported", "config.yaml"):
        convert(checkpoint, tmp_path / "out")


def test_a_contextual_model_under_another_name(checkpoint: Path, tmp_path: Path) -> None:
    edit_tensors(checkpoint, lambda tensors: tensors.update({"decoder.bias_decoder.norm3.bias": torch.zeros(3)}))
    with refused("model-unsupported", "model.pt"):
        convert(checkpoint, tmp_path / "out")


def write_tokens(folder: Path, texts: list[str]) -> None:
    (folder / TOKENS_FILE).write_text(json.dumps(texts), encoding="utf-8")


DAMAGE: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "no CMVN": ("model-missing", lambda folder: (folder / CMVN_FILE).unlink()),
    "no spelling": ("model-missing", lambda folder: (folder / SPELLING_FILE).unlink()),
    "a spelling file that is not text": (
        "model-damaged", lambda folder: (folder / SPELLING_FILE).write_bytes(b"\xff\xfe"),
    ),
    "an empty spelling file": ("model-damaged", lambda folder: (folder / SPELLING_FILE).write_bytes(b"")),
    "a spelling file of another model": (
        "tokenizer-mismatch", lambda folder: (folder / SPELLING_FILE).write_text("hello he@@ llo\nhi\n"),
    ),
    "no tokens": ("model-missing", lambda folder: (folder / TOKENS_FILE).unlink()),
    "tokens of another size": ("tokenizer-mismatch", lambda folder: write_tokens(folder, TEXTS[:-2] + TEXTS[-1:])),
    "tokens in another order": (
        "tokenizer-mismatch", lambda folder: write_tokens(folder, [*TEXTS[1:], TEXTS[0]]),
    ),
    "no unknown token": ("tokenizer-mismatch", lambda folder: write_tokens(folder, [*TEXTS[:-1], "x"])),
    "heads that do not divide": (
        "model-config", lambda folder: edit_yaml(
            folder / "config.yaml", lambda content: content["decoder_conf"].update(attention_heads=3)
        ),
    ),
    "no bias of no token": (
        "model-config", lambda folder: edit_yaml(
            folder / "config.yaml", lambda content: content["model_conf"].update(NO_BIAS=len(TEXTS))
        ),
    ),
    "another width": (
        "model-config", lambda folder: edit_yaml(
            folder / "config.yaml", lambda content: content["predictor_conf"].update(idim=32)
        ),
    ),
    "no tail": (
        "model-config", lambda folder: edit_yaml(
            folder / "config.yaml", lambda content: content["predictor_conf"].pop("tail_threshold")
        ),
    ),
    "other layers": (
        "model-misfit", lambda folder: edit_yaml(
            folder / "config.yaml", lambda content: content["decoder_conf"].update(att_layer_num=3)
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_incomplete_and_damaged_folders(checkpoint: Path, tmp_path: Path, name: str) -> None:
    code, damage = DAMAGE[name]
    damage(checkpoint)
    with refused(code):
        convert(checkpoint, tmp_path / "out")


@pytest.mark.parametrize(
    "name",
    [
        "predictor.cif_conv1d.weight", "predictor.blstm.weight_hh_l0_reverse", "bias_encoder.bias_ih_l0",
        "seaco_decoder.decoders.5.src_attn.linear_k_v.weight", "decoder.decoders3.0.norm1.bias",
    ],
)  # fmt: skip
@pytest.mark.parametrize("shape", [None, (2, 3)])
def test_tensors_that_are_missing_or_misshapen(
    checkpoint: Path, tmp_path: Path, name: str, shape: tuple[int, ...] | None
) -> None:
    """Upstream keeps random values in their place."""

    def change(tensors: dict[str, Any]) -> None:
        tensors.pop(name)
        if shape:
            tensors[name] = torch.zeros(shape)

    edit_tensors(checkpoint, change)
    with refused("model-misfit", name):
        convert(checkpoint, tmp_path / "out")


def test_tokens_of_another_model_in_a_converted_one(converted: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(converted, tmp_path / "copy")
    edit_json(folder / PIECES_FILE, lambda content: content["pieces"].pop())
    with refused("tokenizer-mismatch", PIECES_FILE):
        load_model(folder, "float32")


def test_a_spelling_file_that_is_not_text(converted: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(converted, tmp_path / "copy")
    (folder / SPELLING_FILE).write_bytes(b"\xff\xfe")
    with refused("model-damaged", SPELLING_FILE):
        load(folder).session(TranscribeOptions(hotwords=("你",)))
    with refused("model-damaged", SPELLING_FILE):
        check_model(folder)


def test_a_spelling_file_of_another_model_is_found_by_the_check(converted: Path, tmp_path: Path) -> None:
    """Even if the list of digests was made from it."""
    folder = shutil.copytree(converted, tmp_path / "copy")
    check_model(folder)
    (folder / SPELLING_FILE).write_text("hello he@@ llo\nhi\n")
    sums = {**read_sums(folder), SPELLING_FILE: sha256_of(folder / SPELLING_FILE)}
    (folder / SUMS_FILE).write_text("".join(f"{digest}  {name}\n" for name, digest in sums.items()))
    with refused("tokenizer-mismatch", f"{SPELLING_FILE}: spells no word"):
        check_model(folder)


def test_downloaded_files_and_short_names() -> None:
    small = [CMVN_FILE, "config.yaml", "configuration.json", TOKENS_FILE, SPELLING_FILE]
    assert {*wanted("owner/paraformer", [*small, "example/asr.wav", "fig/a.png", "model.pt"])} == {
        *small,
        "model.pt",
    }
    assert registry.aliases()["paraformer"] == registry.aliases()["paraformer-zh"] == "funasr/paraformer-zh"
    assert "seaco" in registry.modelscope_ids()["funasr/paraformer-zh"]
