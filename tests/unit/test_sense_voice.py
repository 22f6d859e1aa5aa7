"""SenseVoice: the results of a session's rows, required files, and quantization.

Numerical results: tests/parity/test_sense_voice_parity.py.
"""

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
from support.errors import refused
from support.sense_voice import (
    BPE_FILE,
    CMVN_FILE,
    EMOTION_NAMES,
    LANGUAGE_TAGS,
    SIZES,
    SOUND_NAMES,
    TAGS,
    TOKENS_FILE,
    SenseVoiceSpec,
    piece_texts,
)
from support.sense_voice import write_sense_voice as write
from support.small import convert, edit_json, once

from funasr_cli.audio.segment import AudioSegment
from funasr_cli.checkpoints.pieces import PIECES_FILE
from funasr_cli.checkpoints.untrusted import DAMAGED_HINT
from funasr_cli.compute.backend import mx, nn
from funasr_cli.families import registry
from funasr_cli.families.load import load_model
from funasr_cli.families.sense_voice import config as tables
from funasr_cli.families.sense_voice.model import SenseVoiceModel
from funasr_cli.hubs.repository import wanted
from funasr_cli.options import MAX_SEGMENT_S, TranscribeOptions
from funasr_cli.pipeline import Recognizer
from funasr_cli.speech_model import SegmentRequest, Update
from funasr_cli.tags import EMOTIONS, SOUNDS
from funasr_cli.transcript import STAGES

SMALL = SenseVoiceSpec(
    dataclasses.replace(SIZES, encoder_dim=64, encoder_ffn_dim=64, encoder_blocks=2, encoder_tp_blocks=1)
)
TEXTS = piece_texts()
OPTIONS = TranscribeOptions(word_times=True, confidence=True)
SAMPLES = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
ROWS = 17  # of one second


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in FunASR's layout. Do not change it."""
    return once(tmp_path_factory, "small-sense-voice", lambda folder: write(folder, SMALL))


@pytest.fixture(scope="module")
def converted(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`source` converted in float32. Do not change it."""
    return once(tmp_path_factory, "small-sense-voice-mlx", lambda folder: convert(source, folder, dtype="float32"))


@pytest.fixture
def checkpoint(source: Path, tmp_path: Path) -> Path:
    """A copy of `source` to damage."""
    return shutil.copytree(source, tmp_path / "SenseVoiceSmall")


@pytest.fixture
def model(converted: Path) -> SenseVoiceModel:
    """A model that a test may modify."""
    return load(converted)


def load(folder: Path, dtype: str = "float32") -> SenseVoiceModel:
    found = load_model(folder, dtype)
    assert isinstance(found, SenseVoiceModel)
    return found


def set_output(model: SenseVoiceModel, *pieces: str) -> None:
    """Make the encoder's frames represent these pieces, one frame each, followed by blanks."""
    ids = [TEXTS.index(piece) for piece in pieces]
    width = model.config.encoder.width
    assert len(ids) <= width

    def encode(features: list[np.ndarray], queries: object) -> list[mx.array]:
        hidden = np.zeros((len(features), tables.QUERIES + len(features[0]), width), np.float32)
        for frame in range(hidden.shape[1]):
            hidden[:, frame, frame if frame < len(ids) else width - 1] = 1.0
        return list(mx.array(hidden))

    weight = np.zeros((len(TEXTS), width), np.float32)
    weight[0, len(ids) :] = 20.0
    weight[ids, range(len(ids))] = 20.0
    model.network.ctc.ctc_lo.weight = mx.array(weight)
    model.network.ctc.ctc_lo.bias = mx.zeros(len(TEXTS))
    model.network.encode = encode


def request(start: int = 8000, retries: int = 0) -> SegmentRequest:
    return SegmentRequest(0, AudioSegment(start, SAMPLES, np.ones(31)), first=True, retries=retries)


def decode(model: SenseVoiceModel, options: TranscribeOptions = OPTIONS) -> Any:
    session = model.session(options)
    session.add([request(retries=1)])
    [update] = session.step()
    return update.hypothesis.segment


TAGGED = ("<|en|>", "<|HAPPY|>", "<|Laughter|>", "<|withitn|>")


def test_a_segment(model: SenseVoiceModel) -> None:
    set_output(model, *TAGGED, "▁hello", "▁w", "orld", ".")
    segment = decode(model)
    assert segment.text == "hello world."
    assert (segment.start_s, segment.end_s, segment.retries, segment.stop_reason) == (0.5, 1.5, 1, "eos")
    assert (segment.language, segment.tags) == ("en", ("happy", "laughter"))
    assert segment.no_speech_probability < 1e-6
    assert segment.tokens == 4
    assert segment.mean_logprob == pytest.approx(0, abs=1e-5)
    assert [score.text for score in segment.scores] == ["hello", " w", "orld", "."]
    assert [word.text for word in segment.words] == ["hello", "world."]
    assert segment.words[0].start_s == 0.5  # the queries' frames take no time
    # In the middle of the first two frames.
    assert segment.words[1].start_s == pytest.approx(0.5 + 0.0125 + 0.06 * 5 / 6, abs=0.02)


def test_nothing_optional_by_default(model: SenseVoiceModel) -> None:
    set_output(model, *TAGGED, "▁hello")
    segment = decode(model, TranscribeOptions())
    assert segment.text == "hello"
    assert segment.words == segment.scores == ()


@pytest.mark.parametrize("emotion", EMOTION_NAMES)
def test_emotions(model: SenseVoiceModel, emotion: str) -> None:
    set_output(model, "<|en|>", f"<|{emotion}|>", "<|Event_UNK|>", "<|woitn|>", "▁hello")
    assert decode(model).tags == tuple(filter(None, [EMOTION_NAMES[emotion]]))


@pytest.mark.parametrize("event", SOUND_NAMES)
def test_sounds(model: SenseVoiceModel, event: str) -> None:
    set_output(model, "<|en|>", "<|EMO_UNKNOWN|>", f"<|{event}|>", "<|woitn|>", "▁hello")
    assert decode(model).tags == tuple(filter(None, [SOUND_NAMES[event]]))


@pytest.mark.parametrize("language", ["zh", "en", "yue", "ja", "ko", None])
def test_languages(model: SenseVoiceModel, language: str | None) -> None:
    set_output(model, f"<|{language or 'nospeech'}|>", "<|SAD|>", "<|Sing|>", "<|woitn|>", "你", "<|zh|>", "好")
    segment = decode(model)
    assert (segment.text, segment.language, segment.tags) == ("你好", language, ("sad", "singing"))
    assert (segment.no_speech_probability > 0.99) == (language is None)


def test_an_invalid_label_at_a_query_gives_the_likeliest_tag(model: SenseVoiceModel) -> None:
    """For the language query, upstream finds none and starts the text with "hello"."""
    set_output(model, "▁hello", "<|zh|>", "<|HAPPY|>", "<|Speech|>", "好")
    segment = decode(model)
    assert segment.text == "好"
    assert segment.language in tables.LANGUAGES


@pytest.mark.parametrize(
    ("language", "pieces", "text"),
    [
        ("nospeech", "T he .", ""),
        ("nospeech", "T he . 你", "The.你"),
        ("en", "T he .", "The."),
        ("nospeech", "▁hello", "hello"),
        ("zh", "", ""),
    ],
)
def test_a_text_made_up_from_silence(model: SenseVoiceModel, language: str, pieces: str, text: str) -> None:
    set_output(model, f"<|{language}|>", *TAGGED[1:], *pieces.split())
    segment = decode(model)
    assert segment.text == text
    assert "".join(score.text for score in segment.scores) == text
    assert bool(segment.words) == bool(text)


def test_a_space_by_itself_ends_a_word(model: SenseVoiceModel) -> None:
    """Punctuation belongs to its word although it is a separate piece."""
    set_output(model, *TAGGED, "he", "▁", "w", ",", "▁", "▁h")
    assert [word.text for word in decode(model).words] == ["he", "w,", "h"]


def test_repeats_need_a_blank_between_them(model: SenseVoiceModel) -> None:
    set_output(model, *TAGGED, "l", "l", "<unk>", "l")
    assert decode(model).text == "ll"


@pytest.mark.parametrize(
    ("language", "pieces", "seconds", "doubtful"),
    [
        ("en", "", 1.0, True), ("en", "", 0.9, False), ("nospeech", "", 1.0, False),
        ("nospeech", "T he .", 1.0, False), ("en", "T he .", 1.0, False), ("en", "▁hello", 1.0, False),
    ],
)  # fmt: skip
def test_speech_without_a_text_is_doubtful(
    model: SenseVoiceModel, language: str, pieces: str, seconds: float, doubtful: bool
) -> None:
    """It is in the ledger and in the warnings, unless the model reports silence or the segment is very short."""
    set_output(model, f"<|{language}|>", *TAGGED[1:], *pieces.split())
    options = TranscribeOptions(vad=False)
    transcript = Recognizer(model).transcribe(SAMPLES[: int(seconds * 16000)], options, sample_rate_hz=16000)
    [segment] = transcript.segments
    assert (segment.doubtful, segment.state) == (doubtful, "transcribed")
    assert transcript.ledger.doubtful_s == pytest.approx(seconds if doubtful else 0)
    assert bool(transcript.warnings) == doubtful


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_fail_the_segment(model: SenseVoiceModel, value: float) -> None:
    set_output(model, *TAGGED, "▁hello")
    model.network.ctc.ctc_lo.bias = mx.full(len(TEXTS), value)
    segment = decode(model)
    assert (segment.stop_reason, segment.text, segment.mean_logprob) == ("nonfinite", "", None)
    assert segment.state == "failed"


def test_rows_join_and_end(model: SenseVoiceModel) -> None:
    session = model.session(TranscribeOptions())
    first = session.add([request(), request()])
    second = session.add([request()])
    assert len({*first, *second}) == 3
    session.drop(first[1])
    assert [update.row for update in session.step()] == [first[0], *second]
    assert session.step() == []
    [lost] = session.add([request()])
    assert lost not in {*first, *second}
    assert session.reset() == {lost}
    assert session.step() == []
    assert session.seconds.keys() == {"features", "encoder", "ctc"}
    assert session.seconds.keys() <= set(STAGES)


def test_an_error_loses_no_other_rows(model: SenseVoiceModel, monkeypatch: pytest.MonkeyPatch) -> None:
    session = model.session(TranscribeOptions())
    kept = session.add([request()])
    with monkeypatch.context() as patched:
        patched.setattr(model, "reading", lambda hidden: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            session.add([request()])
    assert session.reset() == {*kept}


def test_queries_of_each_row(model: SenseVoiceModel, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, ...]] = []
    encode = model.network.encode
    monkeypatch.setattr(model.network, "encode", lambda x, queries: asked.extend(queries) or encode(x, queries))
    for language, itn in ((None, True), ("auto", False), ("Cantonese", True), ("zh-CN", False), ("ko", True)):
        model.session(TranscribeOptions(language=language, itn=itn)).add([request()])
    assert asked == [(0, 1, 2, 14), (0, 1, 2, 15), (7, 1, 2, 14), (3, 1, 2, 15), (12, 1, 2, 14)]


@pytest.mark.parametrize("language", ["nospeech", "zn", "fr"])
def test_other_languages_are_refused(model: SenseVoiceModel, language: str) -> None:
    with refused("language-unknown", language, "yue"):
        model.session(TranscribeOptions(language=language))


def test_the_number_of_rows_depends_on_memory(model: SenseVoiceModel, monkeypatch: pytest.MonkeyPatch) -> None:
    module = "funasr_cli.families.one_step.available_bytes"
    monkeypatch.setattr(module, lambda: 1 << 40)
    assert model.session(TranscribeOptions()).max_rows == 16
    monkeypatch.setattr(module, lambda: 1 << 27)
    short = model.session(TranscribeOptions(max_segment_s=10)).max_rows
    assert 1 < model.session(TranscribeOptions()).max_rows < short
    monkeypatch.setattr(module, lambda: 0)
    assert model.session(TranscribeOptions(max_segment_s=MAX_SEGMENT_S)).max_rows == 1


def test_the_model_itself(model: SenseVoiceModel) -> None:
    encoded, trace = model.encode(SAMPLES), model.trace(SAMPLES, TranscribeOptions(), [1, 2])
    assert encoded.frames.shape == (ROWS, 64)
    assert (encoded.audio_embeddings, encoded.frame_duration_s) == (None, 0.06)
    assert list(trace.stages) == ["features", "encoder"]
    assert trace.stages["features"].shape == (ROWS, 560)
    assert np.array_equal(trace.stages["encoder"][tables.QUERIES :], np.array(encoded.frames))
    assert trace.logits.shape == (tables.QUERIES + ROWS, len(TEXTS))
    assert list(trace.token_ids) == trace.logits.argmax(-1).tolist()
    assert trace.blank_id == 0
    reading = model.read_ctc(SAMPLES)
    assert reading.frame_ids == list(trace.token_ids[tables.QUERIES :])
    assert trace.text == reading.text
    assert model.prompt(TranscribeOptions()) is None
    with refused("audio-too-short"):
        model.encode(SAMPLES[:1])


def test_a_recording_of_several_segments(model: SenseVoiceModel, zh_wav: Path) -> None:
    """In a batch with another one, the result is the same as alone, and every second is in the ledger."""
    speech, rate_hz = soundfile.read(zh_wav, dtype="float32")
    pause = np.zeros(rate_hz, np.float32)
    long, short = np.concatenate([speech, pause, speech, pause, speech]), speech[: 2 * rate_hz]
    options = TranscribeOptions(word_times=True, confidence=True, max_segment_s=8)
    both = Recognizer(model).transcribe_batch([long, short], options, sample_rate_hz=rate_hz)
    assert len(both[0].segments) >= 3
    for samples, transcript in zip((long, short), both, strict=True):
        alone = Recognizer(model).transcribe(samples, options, sample_rate_hz=rate_hz)
        assert [segment.text for segment in alone.segments] == [segment.text for segment in transcript.segments]
        ledger = transcript.ledger
        heard_s = ledger.transcribed_s + ledger.repaired_s + ledger.failed_s + ledger.silence_s
        assert heard_s == pytest.approx(len(samples) / rate_hz, abs=1e-3)
        for segment in transcript.segments:
            times_s = [time_s for word in segment.words for time_s in (word.start_s, word.end_s)]
            assert times_s == sorted(times_s)
            assert segment.start_s <= times_s[0] <= times_s[-1] <= segment.end_s
            assert segment.tags
        timings = transcript.timings
        assert min(timings.features_s, timings.encoder_s, timings.ctc_s) > 0
        assert timings.tokens == sum(segment.tokens for segment in transcript.segments)


def test_a_model_for_telephones(tmp_path: Path) -> None:
    sizes = dataclasses.replace(SMALL.sizes, sample_rate_hz=8000)
    convert(write(tmp_path / "8k", SenseVoiceSpec(sizes)), tmp_path / "out", dtype="float32")
    found = load(tmp_path / "out")
    assert found.sample_rate_hz == 16000
    assert len(found.features(SAMPLES)) == ROWS


def test_names_of_tags_match_the_common_ones() -> None:
    assert {name for name in EMOTION_NAMES.values() if name} == EMOTIONS.keys()
    assert {name for name in SOUND_NAMES.values() if name} == SOUNDS.keys()
    known = {*tables.LANGUAGE_TAGS, *tables.EMOTION_TAGS, *tables.EVENT_TAGS}
    assert known == {*TAGS.values()} - {"SER", "withitn", "woitn"}


# --- folders ---


def edit_yaml(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(yaml.safe_dump(content), encoding="utf-8")


def test_files_of_a_conversion(source: Path, converted: Path) -> None:
    assert (converted / CMVN_FILE).read_bytes() == (source / CMVN_FILE).read_bytes()
    assert json.loads((converted / PIECES_FILE).read_text(encoding="utf-8")) == {"pieces": TEXTS}
    content = json.loads((converted / "config.json").read_text(encoding="utf-8"))
    assert (content["model_type"], content["vocab_size"], content["blank_id"]) == ("sense_voice", len(TEXTS), 0)
    assert not list(converted.glob("*.model"))


@pytest.mark.parametrize(
    ("container", "prefix"), [(None, ""), ("state_dict", "module."), ("model", ""), ("model_state_dict", "")]
)
def test_containers(converted: Path, tmp_path: Path, container: str | None, prefix: str) -> None:
    sizes = dataclasses.replace(SMALL.sizes, container=container, key_prefix=prefix)
    convert(write(tmp_path / "source", SenseVoiceSpec(sizes)), tmp_path / "out", dtype="float32")
    weights = "model.safetensors"
    found, expected = ((folder / weights).read_bytes()[-1000:] for folder in (tmp_path / "out", converted))
    assert found == expected


def test_stated_files_take_precedence(checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / CMVN_FILE).rename(checkpoint / "own.mvn")
    (checkpoint / CMVN_FILE).write_text("another", encoding="utf-8")
    state = {"frontend_conf": {"cmvn_file": "own.mvn"}, "tokenizer_conf": {"bpemodel": BPE_FILE}}
    edit_json(checkpoint / "configuration.json", lambda content: content.update(file_path_metas=state))
    convert(checkpoint, tmp_path / "out")
    assert (tmp_path / "out" / CMVN_FILE).read_bytes() == (checkpoint / "own.mvn").read_bytes()


@pytest.mark.parametrize("stated", ["/mnt/data/tuned.mvn", "C:\\data\\tuned.mvn", "tuned.mvn"])
def test_a_fine_tune_without_configuration_json(checkpoint: Path, tmp_path: Path, stated: str) -> None:
    """Its config.yaml names files by absolute paths on another machine."""
    (checkpoint / "configuration.json").unlink()
    (checkpoint / CMVN_FILE).rename(checkpoint / "tuned.mvn")
    conf = {"cmvn_file": stated}
    edit_yaml(checkpoint / "config.yaml", lambda content: content["frontend_conf"].update(conf))
    convert(checkpoint, tmp_path / "out")
    assert load(tmp_path / "out").features(SAMPLES).shape == (ROWS, 560)


CONFIGS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "an old encoder": lambda content: content.update(encoder="sanm"),
    "another frontend": lambda content: content.update(frontend="WhisperFrontend"),
    "another tokenizer": lambda content: content.update(tokenizer="CharTokenizer"),
    "other normalisation": lambda content: content.update(normalize="utterance_mvn"),
    "post-norm": lambda content: content["encoder_conf"].update(normalize_before=False),
    "another input layer": lambda content: content["encoder_conf"].update(input_layer="conv2d"),
    "a head without a matrix": lambda content: content.update(ctc_conf={"extra_linear": False}),
    "another blank of the head": lambda content: content.update(ctc_conf={"blank_id": 3}),
    "what is unknown of the head": lambda content: content.update(ctc_conf={"scale": 2.0}),
    "other attention": lambda content: content["encoder_conf"].update(selfattention_layer_type="selfattn"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_variants_that_are_not_supported(checkpoint: Path, tmp_path: Path, name: str) -> None:
    edit_yaml(checkpoint / "config.yaml", CONFIGS[name])
    with refused("model-unsupported", "config.yaml"):
        convert(checkpoint, tmp_path / "out")


def test_training_options_of_the_head(checkpoint: Path, tmp_path: Path) -> None:
    """They change no result."""
    conf = {
        "dropout_rate": 0.1,
        "ctc_type": "builtin",
        "reduce": True,
        "ignore_nan_grad": True,
        "extra_linear": True,
    }
    edit_yaml(checkpoint / "config.yaml", lambda content: content.update(ctc_conf=conf))
    assert convert(checkpoint, tmp_path / "out").tensors


@pytest.mark.parametrize("stated", ["best.pt", "/trained/elsewhere/best.pt", "D:\\trained\\best.pt"])
@pytest.mark.parametrize("is_there", [True, False])
def test_stated_weights_take_precedence(checkpoint: Path, tmp_path: Path, stated: str, is_there: bool) -> None:
    """If they are missing, model.pt is used, as in upstream."""
    edit_json(
        checkpoint / "configuration.json", lambda content: content["file_path_metas"].update(init_param=stated)
    )
    if is_there:
        (checkpoint / "model.pt").rename(checkpoint / "best.pt")
        (checkpoint / "model.pt").write_bytes(b"another")
    convert(checkpoint, tmp_path / "out")
    assert f"the source, {'best' if is_there else 'model'}.pt:" in (tmp_path / "out/README.md").read_text(
        encoding="utf-8"
    )


def test_stated_weights_must_be_in_the_folder(checkpoint: Path, tmp_path: Path) -> None:
    metas = {"init_param": "../model.pt"}
    edit_json(checkpoint / "configuration.json", lambda content: content["file_path_metas"].update(metas))
    with refused("model-path", "../model.pt"):
        convert(checkpoint, tmp_path / "out")


DAMAGE: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "no CMVN": ("model-missing", lambda folder: (folder / CMVN_FILE).unlink()),
    "CMVN cut off": ("model-damaged", lambda folder: (folder / CMVN_FILE).write_bytes(b"<Nnet> <Splice> 560")),
    "CMVN of other bytes": ("model-damaged", lambda folder: (folder / CMVN_FILE).write_bytes(b"\xff\xfe")),
    "huge CMVN": ("model-damaged", lambda folder: (folder / CMVN_FILE).write_bytes(b" " * (1 << 21))),
    "CMVN of no name": (
        "model-config", lambda folder: [
            (folder / "configuration.json").unlink(),
            edit_yaml(
                folder / "config.yaml", lambda content: content["frontend_conf"].update(cmvn_file=[1, 2])
            ),
        ],
    ),
    "no pieces": (
        "model-missing", lambda folder: [(folder / name).unlink() for name in (BPE_FILE, TOKENS_FILE)],
    ),
    "heads that do not divide": (
        "model-config", lambda folder: edit_yaml(
            folder / "config.yaml", lambda content: content["encoder_conf"].update(attention_heads=3)
        ),
    ),
    "a blank that is no piece": (
        "model-config", lambda folder: edit_yaml(
            folder / "config.yaml", lambda content: content["model_conf"].update(blank_id=len(TEXTS))
        ),
    ),
}  # fmt: skip


def test_the_file_with_the_wrong_value_is_named(checkpoint: Path, tmp_path: Path) -> None:
    edit_json(checkpoint / "configuration.json", lambda content: content.update(file_path_metas=[]))
    with refused("model-config", "configuration.json") as failure:
        convert(checkpoint, tmp_path / "out")
    assert "config.yaml" not in failure.value.message


@pytest.mark.parametrize("name", DAMAGE)
def test_incomplete_and_damaged_folders(checkpoint: Path, tmp_path: Path, name: str) -> None:
    code, damage = DAMAGE[name]
    damage(checkpoint)
    with refused(code):
        convert(checkpoint, tmp_path / "out")


@pytest.mark.parametrize("name", ["embed.weight", "ctc.ctc_lo.bias", "encoder.tp_norm.weight"])
@pytest.mark.parametrize("shape", [None, (2, 3)])
def test_tensors_that_are_missing_or_misshapen(
    checkpoint: Path, tmp_path: Path, name: str, shape: tuple[int, ...] | None
) -> None:
    path = checkpoint / "model.pt"
    stored = torch.load(path, weights_only=True)
    tensors = stored["state_dict"]
    tensors.pop(name)
    if shape:
        tensors[name] = torch.zeros(shape)
    torch.save(stored, path)
    with refused("model-misfit", name):
        convert(checkpoint, tmp_path / "out")


def only_tokens(folder: Path, texts: list[str]) -> None:
    (folder / BPE_FILE).unlink()
    (folder / TOKENS_FILE).write_text(json.dumps(texts), encoding="utf-8")


OTHERS: dict[str, list[str]] = {
    "no tags": [text.replace("<|", "<") for text in TEXTS],
    "too few": TEXTS[:5] + TEXTS[6:],
    "too many": [*TEXTS, "x"],
} | {f"no {tag}": [text.replace(f"<|{tag}|>", tag) for text in TEXTS] for tag in LANGUAGE_TAGS}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_pieces_of_another_model(checkpoint: Path, tmp_path: Path, name: str) -> None:
    """The error names the file that causes it."""
    only_tokens(checkpoint, OTHERS[name])
    with refused("tokenizer-mismatch", str(checkpoint / TOKENS_FILE)):
        convert(checkpoint, tmp_path / "out")


def test_the_list_replaces_a_missing_stated_model(checkpoint: Path, converted: Path, tmp_path: Path) -> None:
    only_tokens(checkpoint, TEXTS)
    convert(checkpoint, tmp_path / "out")
    assert (tmp_path / "out" / PIECES_FILE).read_bytes() == (converted / PIECES_FILE).read_bytes()


def test_pieces_of_another_model_in_a_converted_one(converted: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(converted, tmp_path / "copy")
    for texts in OTHERS.values():
        (folder / PIECES_FILE).write_text(json.dumps({"pieces": texts}), encoding="utf-8")
        with refused("tokenizer-mismatch", PIECES_FILE):
            load_model(folder, "float32")


@pytest.mark.parametrize("name", [PIECES_FILE, CMVN_FILE])
def test_a_missing_file_of_a_converted_model_has_a_hint(converted: Path, tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(converted, tmp_path / "copy")
    (folder / name).unlink()
    with refused("model-missing", folder / name, DAMAGED_HINT):
        load_model(folder, "float32")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda content: content["encoder"].update(input_dim=80), "model-config"),
        (lambda content: content.update(vocab_size=7), "model-misfit"),
        (lambda content: content.pop("blank_id"), "model-config"),
    ],
)
def test_a_converted_model_that_does_not_fit(
    converted: Path, tmp_path: Path, change: Callable[[dict[str, Any]], Any], code: str
) -> None:
    folder = shutil.copytree(converted, tmp_path / "copy")
    edit_json(folder / "config.json", change)
    with refused(code):
        load_model(folder, "float32")


# --- quantization ---


def test_eight_bits(source: Path, model: SenseVoiceModel, tmp_path: Path) -> None:
    """Every matrix whose rows divide is quantized, whether dequantized on loading or used directly."""
    convert(source, tmp_path / "out", quantize="8", dtype="float32")
    dense = model.trace(SAMPLES, TranscribeOptions())
    for dtype in ("float32", "stored"):
        found = load(tmp_path / "out", dtype)
        quantized = [part for _, part in found.network.named_modules() if isinstance(part, nn.QuantizedLinear)]
        assert len(quantized) == (4 * 3 if dtype == "stored" else 0)  # all except the first, with rows of 560
        trace = found.trace(SAMPLES, TranscribeOptions())
        assert np.corrcoef(trace.logits.ravel(), dense.logits.ravel())[0, 1] > 0.99
        hidden = mx.array(dense.stages["encoder"])
        some = found.network.ctc.logits_of(hidden, [5, 0, 9])
        assert np.allclose(some, np.array(found.network.ctc.logits(hidden))[:, [5, 0, 9]], atol=1e-3)


@pytest.mark.parametrize("recipe", [{"quantize": "4"}, {"quantize": "mixed"}, {"quantize_encoder": 8}])
def test_other_recipes_are_refused(source: Path, tmp_path: Path, recipe: dict[str, Any]) -> None:
    with refused("option-unsupported", "SenseVoiceSmall"):
        convert(source, tmp_path / "out", **recipe)


def test_languages_cannot_be_changed(source: Path, tmp_path: Path) -> None:
    with refused("option-unsupported", "SenseVoiceSmall"):
        convert(source, tmp_path / "out", languages=("zh",))


def test_downloaded_files() -> None:
    small = ["am.mvn", "chn_jpn_yue_eng_ko_spectok.bpe.model", "config.yaml", "configuration.json", "tokens.json"]
    others = ["example/zh.mp3", "fig/ser.png", "model.onnx", ".gitattributes"]
    assert {*wanted("iic/SenseVoiceSmall", [*small, *others, "model.pt"])} == {*small, "model.pt"}


def test_it_has_short_names() -> None:
    hub_id = "FunAudioLLM/SenseVoiceSmall"
    assert registry.aliases()["sensevoice"] == registry.aliases()["sense-voice-small"] == hub_id
    assert registry.modelscope_ids()[hub_id] == "iic/SenseVoiceSmall"


def test_an_update_holds_the_hypothesis_of_its_row(model: SenseVoiceModel) -> None:
    set_output(model, *TAGGED, "▁hello", "▁w")
    session = model.session(TranscribeOptions())
    [row] = session.add([request()])
    [update] = session.step()
    assert isinstance(update, Update)
    assert (update.row, update.text, dict(update.counts)) == (row, None, {"tokens": 2})
    assert update.hypothesis is not None
    assert not update.hypothesis.retry_may_help
