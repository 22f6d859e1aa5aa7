"""Whisper: layouts, vocabulary, and the results of a session's rows.

Numerical results: tests/parity/test_whisper_parity.py, and with real weights tests/accuracy/test_whisper_real.py.
"""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.errors import refused
from support.real_data import real_part
from support.small import convert, edit_json, once
from support.whisper import (
    HEAD_PAIRS,
    HEADS,
    random_tensors,
    write_funasr,
    write_hf,
    write_mlx,
    write_openai,
)

from funasr_cli.audio.segment import AudioSegment
from funasr_cli.checkpoints.npz import open_npz
from funasr_cli.compute.backend import mx
from funasr_cli.families import registry
from funasr_cli.families.load import load_model
from funasr_cli.families.open import is_model, open_checkpoint, open_model
from funasr_cli.families.whisper import tokens
from funasr_cli.families.whisper.config import TOKEN_OF, capabilities, usual_heads
from funasr_cli.families.whisper.model import WhisperModel
from funasr_cli.hubs.repository import wanted
from funasr_cli.options import TranscribeOptions
from funasr_cli.pipeline import Recognizer
from funasr_cli.scheduling.scheduler import of_session
from funasr_cli.speech_model import SegmentRequest
from funasr_cli.subtitles import pieces_of
from funasr_cli.transcript import Segment
from funasr_cli.writers import WRITERS

RNG = np.random.default_rng(0)
CLIPS = [RNG.normal(0, 0.1, int(seconds * 16000)).astype(np.float32) for seconds in (1, 2.5, 30, 0.2)]
LAYOUTS: dict[str, Callable[[Path, Any], Path]] = {
    "openai": write_openai,
    "funasr": write_funasr,
    "hf": write_hf,
    "hf-bin": lambda folder, tensors: write_hf(folder, tensors, pickled=True),
    "mlx": write_mlx,
    "mlx-npz": lambda folder, tensors: write_mlx(folder, tensors, npz=True),
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in Transformers' layout. Do not change it."""
    return once(tmp_path_factory, "small-whisper", lambda folder: write_hf(folder, random_tensors()))


@pytest.fixture(scope="module")
def converted(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`source` converted in float32. Do not change it."""
    return once(tmp_path_factory, "small-whisper-mlx", lambda folder: convert(source, folder, dtype="float32"))


@pytest.fixture(scope="module")
def shared(converted: Path) -> WhisperModel:
    """A model that no test may change."""
    return load(converted)


@pytest.fixture
def model(converted: Path) -> WhisperModel:
    """A model that a test may change."""
    return load(converted)


def load(folder: Path, dtype: str = "float32") -> WhisperModel:
    found = load_model(folder, dtype)
    assert isinstance(found, WhisperModel)
    return found


def request(samples: np.ndarray, *, first: bool = True) -> SegmentRequest:
    return SegmentRequest(0, AudioSegment(8000, samples, np.ones(max(1, len(samples) // 512))), first)


def decode(model: WhisperModel, options: TranscribeOptions, *clips: np.ndarray) -> list[Segment]:
    """Decode clips as one batch."""
    session = model.session(options)
    numbers = session.add([request(samples) for samples in clips])
    found: dict[int, Segment] = {}
    while len(found) < len(clips):
        found |= {update.row: update.hypothesis.segment for update in session.step() if update.hypothesis}
    return [found[number] for number in numbers]


def assert_same(one: Segment, other: Segment) -> None:
    """Compare everything but the last bits of probabilities."""

    def exact(segment: Segment) -> Any:
        translation = segment.translation and dataclasses.replace(segment.translation, mean_logprob=None)
        words = [(word.text, word.start_s, word.end_s) for word in segment.words]
        scores = [score.text for score in segment.scores]
        return (segment.text, segment.language, segment.pieces, segment.tokens, segment.stop_reason, translation,
                words, scores)  # fmt: skip

    assert exact(one) == exact(other)
    assert one.mean_logprob == pytest.approx(other.mean_logprob, abs=1e-4)


def writes(model: WhisperModel, monkeypatch: pytest.MonkeyPatch, *texts: list[int | str]) -> None:
    """Make the decoder write these tokens, ids or names, for its rows in turn, whatever it hears."""
    vocabulary = model.vocabulary
    rows = [[vocabulary.special[each] if isinstance(each, str) else each for each in text] for text in texts]

    class Rules:
        need_tokens = True

        def __call__(self, logits: Any, steps: Any, written: list[list[int]]) -> Any:
            chosen = np.full(logits.shape, -20.0, np.float32)
            for index, row in enumerate(written):
                begun = [text for text in rows if row and text[: len(row)] == row]
                text = (begun or [rows[index % len(rows)]])[0]
                chosen[index, text[len(row)] if len(row) < len(text) else vocabulary.end] = 0.0
            return mx.array(chosen)

    monkeypatch.setattr(model, "rules", lambda options: Rules())


# --- layouts ---


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_model(layout: str, converted: Path, tmp_path: Path) -> None:
    folder = LAYOUTS[layout](tmp_path / "Whisper", random_tensors())
    checkpoint, expected = open_checkpoint(folder, "Whisper"), open_model(converted)
    stated = dataclasses.replace(checkpoint.config, alignment_heads=expected.config.alignment_heads)
    assert stated == expected.config
    assert checkpoint.tensors.keys() == expected.tensors.keys()
    for name, tensor in checkpoint.tensors.items():
        found, wanted_values = (np.array(each.read_in("float32")) for each in (tensor, expected.tensors[name]))
        # mlx-whisper's layout lacks the positions, which are computed in float32.
        assert np.allclose(
            found, wanted_values, atol=1e-3 if name == "encoder.positional_embedding" else 0, rtol=0
        )
    assert is_model(folder) == layout.startswith("mlx")
    assert checkpoint.texts[tokens.TOKENS_FILE]
    assert json.loads(checkpoint.texts[tokens.TOKENS_FILE]) == json.loads(
        (converted / tokens.TOKENS_FILE).read_text(encoding="utf-8")
    )
    heads = tuple(layer * HEADS + head for layer, head in HEAD_PAIRS)
    known = layout.startswith(("mlx", "hf"))
    assert checkpoint.config.alignment_heads == (heads if known else (2, 3))  # all of the upper half


@pytest.mark.slow
def test_a_quantized_model_of_mlx_whisper(converted: Path, tmp_path: Path) -> None:
    """It computes nearly the same. `test_quantizing` computes with matrices that stay quantized."""
    folder = write_mlx(tmp_path / "4bit", random_tensors())
    weights = dict(mx.load(str(folder / "weights.safetensors")))
    for name in [name for name, value in weights.items() if name.endswith(".weight") and value.ndim == 2]:
        packed, scales, biases = mx.quantize(weights.pop(name), group_size=64, bits=8)
        module = name.removesuffix(".weight")
        weights |= {name: packed, f"{module}.scales": scales, f"{module}.biases": biases}
    mx.save_safetensors(str(folder / "weights.safetensors"), weights)
    edit_json(folder / "config.json", lambda config: config.update(quantization={"group_size": 64, "bits": 8}))
    exact = np.array(load(converted).encode(CLIPS[0]).frames)
    found = np.array(load(folder).encode(CLIPS[0]).frames)
    assert np.linalg.norm(found - exact) < 0.05 * np.linalg.norm(exact)
    with refused("model-quantized"):
        convert(folder, tmp_path / "out")


@pytest.mark.slow
def test_quantizing(source: Path, tmp_path: Path) -> None:
    convert(source, tmp_path / "out", quantize="4")
    [segment] = decode(load(tmp_path / "out", "stored"), TranscribeOptions(language="en", max_tokens=2), CLIPS[0])
    assert segment.tokens == 2
    with refused("option-unsupported"):
        convert(source, tmp_path / "mixed", quantize="mixed")


def test_a_compressed_archive_is_refused(tmp_path: Path) -> None:
    folder = write_mlx(tmp_path / "mlx", random_tensors(), npz=True)
    stored = dict(np.load(folder / "weights.npz"))
    np.savez_compressed(folder / "weights.npz", **{"decoder.ln.bias": stored["decoder.ln.bias"]})
    with refused("model-unsafe"):
        open_model(folder)
    (folder / "weights.npz").write_bytes(b"PK\x03\x04 not an archive")
    with refused("model-damaged"):
        open_model(folder)


def npy(shape: tuple[int, ...], kind: str = "<f4", values: bytes = bytes(8)) -> bytes:
    """Return a file of NumPy's whose header states a shape and a type, whatever its values are."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"shape": shape, "fortran_order": False, "descr": kind})
    return file.getvalue() + values


@pytest.mark.parametrize(
    "entry",
    [npy((2,), "|O", bytes(16)), npy((1 << 40, 1 << 40)), npy((3,)), npy((1,)), npy((-1, -2)), npy((-2,))],
    ids=["objects", "absurd", "too short", "too long", "negative", "negative size"],
)
def test_an_array_of_another_size_than_it_states_is_refused_on_opening(tmp_path: Path, entry: bytes) -> None:
    path = tmp_path / "weights.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("good.npy", npy((2,)))
    assert open_npz(path)["good"].shape == (2,)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("bad.npy", entry)
    with refused("model-damaged"):
        open_npz(path)


@pytest.mark.parametrize("shape", [(), (3,), (2, 2, 2, 2)])
@pytest.mark.parametrize(
    "name",
    ["encoder.conv1.weight", "encoder.positional_embedding", "decoder.positional_embedding",
     "decoder.token_embedding.weight"],
)  # fmt: skip
def test_tensors_with_another_number_of_axes_are_refused(
    tmp_path: Path, name: str, shape: tuple[int, ...]
) -> None:
    folder = write_openai(tmp_path / "other", random_tensors() | {name: np.zeros(shape, np.float16)})
    with refused("model-misfit"):
        open_checkpoint(folder, "other")


def test_an_untied_head_is_refused(tmp_path: Path) -> None:
    tensors = random_tensors()
    folder = write_hf(tmp_path / "hf", tensors)
    from safetensors.numpy import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    head = weights["model.decoder.embed_tokens.weight"]
    save_file(weights | {"proj_out.weight": head}, folder / "model.safetensors")
    open_checkpoint(folder, "hf")
    save_file(weights | {"proj_out.weight": head + 1}, folder / "model.safetensors")
    with refused("model-misfit"):
        open_checkpoint(folder, "hf")


def test_other_networks_are_refused(source: Path, tmp_path: Path) -> None:
    folder = write_openai(tmp_path / "other", {"encoder.conv1.bias": np.zeros(3, np.float16)})
    with refused("model-misfit"):
        open_checkpoint(folder, "other")


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (
            ["config.json", "tokenizer.json", "model.safetensors", "pytorch_model.bin", "x.wav"],
            "model.safetensors",
        ),
        (["config.json", "pytorch_model.bin"], "pytorch_model.bin"),
        (["config.json", "weights.npz"], "weights.npz"),
        (["config.json", "weights.npz", "weights.safetensors"], "weights.safetensors"),
        (["config.yaml", "configuration.json", "large-v3.pt"], "large-v3.pt"),
    ],
)
def test_weights_in_a_repository(names: list[str], chosen: str) -> None:
    found = wanted("a/b", names)
    assert [name for name in found if name.endswith((".safetensors", ".bin", ".npz", ".pt"))] == [chosen]


def test_short_names() -> None:
    names = registry.aliases()
    for size in ("tiny", "base", "small", "medium", "large-v3", "turbo", "base.en"):
        assert f"whisper-{size}" in names
        assert registry.of_hub_name(f"whisper-{size}") is registry.of_model_type("whisper")


# --- vocabulary ---


@pytest.mark.parametrize(("size", "end"), [(51864, 50256), (51865, 50257), (51866, 50257)])
def test_special_tokens(size: int, end: int) -> None:
    words, special = tokens.bundled(size)
    assert (special["endoftext"], special["startoftranscript"]) == (end, end + 1)
    assert special["30.00"] == size - 1
    assert special["notimestamps"] == special["0.00"] - 1
    assert ("yue" in special) == (size == 51866)
    vocabulary = tokens.WhisperVocabulary(words, special)
    assert vocabulary.decode(vocabulary.encode(" the 房 naïve")) == " the 房 naïve"
    assert len(vocabulary.encode(" the")) == 1
    assert len(vocabulary.never) == (90 if size == 51864 else 88)
    assert {special["nospeech"], special["startofprev"]} <= {*vocabulary.never}
    assert not {special["en"], special["notimestamps"], *vocabulary.encode(",")} & {*vocabulary.never}


def test_tokens_of_base_are_those_of_the_release() -> None:
    special = tokens.bundled(51865)[1]
    known = {
        "en": 50259,
        "su": 50357,
        "translate": 50358,
        "transcribe": 50359,
        "startofprev": 50361,
        "nospeech": 50362,
    }
    assert {name: special[name] for name in known} == known


def test_an_old_tokenizer(tmp_path: Path) -> None:
    """It lacks time tokens, and has another name for one token."""
    words, special = tokens.bundled(51865)
    added = [
        {"id": number, "content": f"<|{'nocaptions' if name == 'nospeech' else name}|>"}
        for name, number in special.items()
        if "." not in name
    ]
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({"model": {"vocab": words}, "added_tokens": added}), encoding="utf-8")
    found, found_special = tokens.of_tokenizer(path)
    assert found == words
    assert {name: found_special[name] for name in special} == special


@pytest.mark.parametrize("content", ["[]", "{}", '{"model": {"vocab": {"a": "b"}}, "added_tokens": []}', "x"])
def test_a_damaged_tokenizer(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content, encoding="utf-8")
    with refused("model-damaged") if content not in ("[]",) else refused("model-config"):
        tokens.of_tokenizer(tmp_path / "tokenizer.json")


# --- capabilities ---


def test_what_sizes_can_do(shared: WhisperModel) -> None:
    config = shared.config
    able = capabilities(config)
    assert able.translation
    assert able.language_found
    assert len(able.languages) == 99
    turbo = dataclasses.replace(config, decoder=dataclasses.replace(config.decoder, layers=1))
    assert not capabilities(turbo).translation
    english = capabilities(dataclasses.replace(config, languages=("en",)))
    assert not english.translation
    assert not english.language_found
    assert able.languages.count("fil") == able.languages.count("jv") == 1
    assert TOKEN_OF["fil"] == "tl"


def test_alignment_heads_by_size(shared: WhisperModel) -> None:
    encoder, decoder = shared.config.encoder, shared.config.decoder

    def heads(layers: tuple[int, int], width: int, name: str = "", mels: int = 80, size: int = 51865) -> int:
        return len(
            usual_heads(
                dataclasses.replace(encoder, layers=layers[0], mel_bins=mels),
                dataclasses.replace(decoder, layers=layers[1], width=width, heads=width // 64, vocab_size=size),
                name,
            )
        )

    assert heads((6, 6), 512) == 8
    assert heads((6, 6), 512, size=51864) == 5
    assert heads((32, 32), 1280, "large-v1.pt") == 9
    assert heads((32, 32), 1280) == 23
    assert heads((32, 32), 1280, mels=128, size=51866) == 10
    assert heads((32, 4), 1280, mels=128, size=51866) == 6
    assert heads((32, 2), 1280, mels=128, size=51866) == 20  # distilled: all heads of the upper layer


@pytest.mark.parametrize("language", ["en", "german", "zh-CN", "tl", "Javanese"])
def test_prompts(shared: WhisperModel, language: str) -> None:
    special = shared.vocabulary.special
    token = {"german": "de", "zh-CN": "zh", "Javanese": "jw"}.get(language, language)
    code = {"german": "de", "zh-CN": "zh", "tl": "fil", "Javanese": "jv"}.get(language, language)
    options = TranscribeOptions(language=language)
    names = ["startoftranscript", token, "transcribe", "notimestamps"]
    assert shared.prompt_ids(options, code) == [special[name] for name in names]
    timed = shared.prompt_ids(dataclasses.replace(options, segment_times=True), code, task="translate")
    assert timed == [special[name] for name in ["startoftranscript", token, "translate"]]


def test_text_before_the_recording(shared: WhisperModel) -> None:
    special, encode = shared.vocabulary.special, shared.vocabulary.encode
    options = TranscribeOptions(hotwords=("MLX", "Kubernetes"), prev_text=" Well then. ")
    both = shared.prompt_ids(options, "en")
    assert both[:-4] == [special["startofprev"], *encode(" MLX, Kubernetes."), *encode(" Well then.")]
    later = shared.prompt_ids(options, "en", first=False)
    assert later[:-4] == [special["startofprev"], *encode(" MLX, Kubernetes.")]
    long = dataclasses.replace(options, prev_text="word " * 400)
    ids = shared.prompt_ids(long, "en")
    assert len(ids) == 224 + 4  # half of the positions
    assert ids[1 : 1 + len(encode(" MLX, Kubernetes."))] == encode(" MLX, Kubernetes.")  # never cut off
    with refused("prompt-too-long", 223):
        shared.session(TranscribeOptions(hotwords=("word",) * 224))


def test_languages_of_an_english_model(tmp_path: Path) -> None:
    folder = write_mlx(tmp_path / "base.en", random_tensors(vocab_size=51864))
    model = load(folder)
    assert model.capabilities.languages == ("en",)
    assert model.prompt_ids(TranscribeOptions(), "en") == [
        model.vocabulary.special[name] for name in ("startoftranscript", "notimestamps")
    ]
    with refused("language-unknown"):
        model.session(TranscribeOptions(language="de"))
    with refused("option-unsupported"):
        Recognizer(model).refuse_unsupported(TranscribeOptions(translate=True))


# --- results ---


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [TranscribeOptions(max_tokens=6), TranscribeOptions(max_tokens=6, segment_times=True, translate=True),
     TranscribeOptions(max_tokens=6, temperature=0.8, seed=3, hotwords=("one", "two"))],
    ids=["plain", "times and translation", "sampled"],
)  # fmt: skip
def test_a_text_does_not_depend_on_its_batch(shared: WhisperModel, options: TranscribeOptions) -> None:
    together = decode(shared, options, *CLIPS)
    for samples, segment in zip(CLIPS, together, strict=True):
        assert_same(*decode(shared, options, samples), segment)


OWN = [
    {}, {"language": "de"}, {"language": "en", "translate": True}, {"translate": True, "segment_times": True},
    {"hotwords": ("Kasan", "Ufa")}, {"prev_text": "We met at ten."}, {"word_times": True, "confidence": True},
    {"max_tokens": 2}, {"exact_tokens": 9}, {"segment_times": True, "word_times": True},
]  # fmt: skip


@pytest.mark.slow
def test_rows_have_options_of_their_own(shared: WhisperModel) -> None:
    """Rows that join one session write what they write alone. They ignore the options of it and of other rows."""
    other = TranscribeOptions(language="fr", translate=True, segment_times=True, word_times=True, max_tokens=3)
    session, found, owners = shared.session(other), dict[int, Segment](), dict[int, int]()
    own = [TranscribeOptions(**({"max_tokens": 6} | each)) for each in OWN]
    for index, options in enumerate(own):
        joins = dataclasses.replace(request(CLIPS[index % 3]), options=options)
        [number] = session.add([joins])
        owners[number] = index
        for update in session.step():
            if update.hypothesis:
                found[owners[update.row]] = update.hypothesis.segment
    while len(found) < len(own):
        found |= {owners[each.row]: each.hypothesis.segment for each in session.step() if each.hypothesis}
    for index, options in enumerate(own):
        assert_same(*decode(shared, options, CLIPS[index % 3]), found[index])
    assert len({of_session(options, shared) for options in own}) == 1


def test_hotwords_that_are_too_long_are_refused_before_their_row_joins_others(shared: WhisperModel) -> None:
    with refused("prompt-too-long", 223):
        shared.prompt(TranscribeOptions(hotwords=("word",) * 224))


@pytest.mark.slow
def test_rows_join_and_leave(shared: WhisperModel) -> None:
    """A row that joins later writes what it writes alone."""
    options = TranscribeOptions(max_tokens=6)
    session, found = shared.session(options), dict[int, Segment]()
    waiting = list(enumerate(CLIPS))
    owners: dict[int, int] = {}
    while waiting or len(found) < len(CLIPS):
        if waiting:
            index, samples = waiting.pop(0)
            [number] = session.add([request(samples)])
            owners[number] = index
        for _ in range(2):
            found |= {
                owners[update.row]: update.hypothesis.segment for update in session.step() if update.hypothesis
            }
    for index, samples in enumerate(CLIPS):
        [alone] = decode(shared, options, samples)
        assert found[index].text == alone.text


def test_a_segment(model: WhisperModel, monkeypatch: pytest.MonkeyPatch) -> None:
    hello = model.vocabulary.encode(" Hello world,  it's 房.")
    writes(model, monkeypatch, hello)
    options = TranscribeOptions(word_times=True, confidence=True)
    [segment] = decode(model, options, CLIPS[1])
    assert segment.text == "Hello world, it's 房."
    assert (segment.start_s, segment.end_s, segment.stop_reason) == (0.5, 3.0, "eos")
    assert "".join(score.text for score in segment.scores) == segment.text
    assert [word.text for word in segment.words] == ["Hello", "world,", "it's", "房."]
    times = [time_s for word in segment.words for time_s in (word.start_s, word.end_s)]
    assert times == sorted(times)
    assert 0.5 <= times[0] <= times[-1] <= 3.0
    assert segment.tokens == len(hello) + 1
    assert 0 <= segment.no_speech_probability <= 1
    assert segment.language in model.capabilities.languages
    [given] = decode(model, TranscribeOptions(language="de"), CLIPS[1])
    assert given.language is None
    assert given.words == given.scores == given.pieces == ()


@pytest.mark.parametrize("text", ["Say either/silver and gold", "no <think> me</think> now", "an end/si"])
def test_marks_of_other_models_are_words(model: WhisperModel, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    writes(model, monkeypatch, model.vocabulary.encode(f" {text}"))
    [segment] = decode(model, TranscribeOptions(word_times=True, confidence=True), CLIPS[1])
    assert segment.text == "".join(piece.text for piece in pieces_of(segment)) == text
    assert "".join(score.text for score in segment.scores) == text


def test_pieces(model: WhisperModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Times are within the segment; a last piece with no end time lasts until the end of the segment."""
    one, two = model.vocabulary.encode(" One."), model.vocabulary.encode(" Two")
    writes(model, monkeypatch, ["0.00", *one, "0.80", "1.20", *two])
    [segment] = decode(model, TranscribeOptions(segment_times=True), CLIPS[1])
    assert [(piece.text, piece.start_s, piece.end_s) for piece in segment.pieces] == [
        ("One.", 0.5, pytest.approx(1.3)),
        ("Two", pytest.approx(1.7), 3.0),
    ]
    assert segment.text == "One. Two"
    writes(model, monkeypatch, ["0.00", *one, "29.00"])
    assert decode(model, TranscribeOptions(segment_times=True), CLIPS[1])[0].pieces[0].end_s == 3.0


ROUNDS = [each for step in range(20, 60) for each in (f"{step / 50:.2f}", " no")]
LOOPS = {"tokens": ["0.00", " One.", "0.20", "0.20", *[" no"] * 60], "rounds": ["0.00", " One.", "0.20", *ROUNDS]}


@pytest.mark.slow
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("translate", [False, True])
@pytest.mark.parametrize("kind", ["segment_times", "word_times"])
def test_a_loop_is_divided_as_far_as_its_text_goes(
    model: WhisperModel, monkeypatch: pytest.MonkeyPatch, loop: str, translate: bool, kind: str
) -> None:
    """Words and pieces are parts of the text, which lacks most of what the model wrote, also in files."""
    looping = [
        token for each in LOOPS[loop] for token in (model.vocabulary.encode(each) if each[0] == " " else [each])
    ]
    writes(model, monkeypatch, looping, *[["0.02", *looping]] * translate)
    options = TranscribeOptions(language="de", translate=translate, vad=False, **{kind: True})
    [segment] = decode(model, options, CLIPS[1])
    assert (segment.text, segment.stop_reason) == ("One. no", "loop")
    parts = segment.words if options.word_times else segment.pieces
    assert [part.text for part in parts] == ["One.", "no"]
    assert 0.5 <= parts[0].start_s <= parts[0].end_s <= parts[1].start_s <= parts[1].end_s <= 3.0
    if translate:
        assert segment.translation.text == "One. no"
        pieces = [piece.text for piece in segment.translation.pieces]
        assert pieces == ([] if options.word_times else ["One.", "no"])
    transcript = Recognizer(model).transcribe(CLIPS[1], options, sample_rate_hz=16000)
    for each in (transcript, transcript.translated):
        for name in ("srt", "json"):
            assert "One." in WRITERS[name](each)


def test_a_time_inside_a_character(model: WhisperModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The character belongs to the piece that it begins in."""
    first, *rest = next(ids for ids in map(model.vocabulary.encode, "龘鬱䯂") if len(ids) >= 2)
    writes(model, monkeypatch, ["0.00", first, "0.80", "0.80", *rest, *model.vocabulary.encode(" b"), "1.20"])
    [segment] = decode(model, TranscribeOptions(segment_times=True), CLIPS[1])
    assert [piece.text for piece in segment.pieces] == segment.text.split()
    assert len(segment.pieces) == 2
    assert "".join(piece.text for piece in pieces_of(segment)) == segment.text


def test_translations(model: WhisperModel, monkeypatch: pytest.MonkeyPatch) -> None:
    hallo, hello = model.vocabulary.encode(" Hallo"), model.vocabulary.encode(" Hello there")
    writes(model, monkeypatch, hallo, hello)
    [segment] = decode(model, TranscribeOptions(language="de", translate=True), CLIPS[0])
    assert (segment.text, segment.translation.text, segment.translation.language) == ("Hallo", "Hello there", "en")
    assert segment.tokens == len(hallo) + len(hello) + 2
    assert segment.translation.mean_logprob == pytest.approx(0.0, abs=1e-3)
    assert (segment.translated.text, segment.translated.language) == ("Hello there", "en")
    [english] = decode(model, TranscribeOptions(language="en", translate=True), CLIPS[0])
    assert english.translation.text == english.text == "Hallo"
    assert decode(model, TranscribeOptions(language="de"), CLIPS[0])[0].translation is None


def test_pieces_of_a_translation(model: WhisperModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """They have times of their own, and are the segment's if the translation takes its place."""
    spoken, one, two = (model.vocabulary.encode(text) for text in (" Eins zwei", " One.", " Two"))
    writes(model, monkeypatch, ["0.00", *spoken, "1.80"], ["0.02", *one, "0.80", "1.20", *two])
    [segment] = decode(model, TranscribeOptions(language="de", segment_times=True, translate=True), CLIPS[1])
    assert [piece.text for piece in segment.pieces] == ["Eins zwei"]
    times = [(piece.text, piece.start_s, piece.end_s) for piece in segment.translation.pieces]
    assert times == [("One.", pytest.approx(0.52), pytest.approx(1.3)), ("Two", pytest.approx(1.7), 3.0)]
    assert segment.translated.pieces == segment.translation.pieces
    assert not segment.translated.translated.words


def test_a_translation_that_does_not_end(model: WhisperModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its segment is incomplete, and decoded again in parts."""
    writes(model, monkeypatch, model.vocabulary.encode(" Hallo"), model.vocabulary.encode(" no") * 50)
    session = model.session(TranscribeOptions(language="de", translate=True))
    session.add([request(CLIPS[0])])
    updates = [update for _ in range(60) for update in session.step()]
    hypothesis = updates[-1].hypothesis
    assert (hypothesis.segment.stop_reason, hypothesis.retry_may_help) == ("loop", True)


def test_text_of_silence(model: WhisperModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is dropped only if it is improbable as well."""
    writes(model, monkeypatch, model.vocabulary.encode(" Thank you."))
    listen = model.listen
    monkeypatch.setattr(model, "listen", lambda *args: [each._replace(no_speech=0.7) for each in listen(*args)])
    assert decode(model, TranscribeOptions(), CLIPS[0])[0].text == "Thank you."
    monkeypatch.setattr("funasr_cli.families.whisper.session.UNLIKELY", 1.0)
    [segment] = decode(model, TranscribeOptions(word_times=True, translate=True), CLIPS[0])
    assert (segment.text, segment.words, segment.language, segment.doubtful) == ("", (), None, False)
    assert segment.translation.text == ""


def test_no_text_of_speech_is_doubtful(model: WhisperModel, monkeypatch: pytest.MonkeyPatch) -> None:
    writes(model, monkeypatch, ["endoftext"])
    listen = model.listen
    monkeypatch.setattr(model, "listen", lambda *args: [each._replace(no_speech=0.1) for each in listen(*args)])
    assert [segment.doubtful for segment in decode(model, TranscribeOptions(), CLIPS[0], CLIPS[3])] == [
        True,
        False,
    ]


def test_a_text_that_repeats_itself_in_long_rounds(model: WhisperModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too few rounds for a loop of tokens, but it compresses too well."""
    sentence = " It was the best of times, it was the worst of times, and the town did not know which it was."
    writes(model, monkeypatch, model.vocabulary.encode(sentence * 3))
    session = model.session(TranscribeOptions())
    session.add([request(CLIPS[2])])
    hypotheses = [update.hypothesis for _ in range(80) for update in session.step() if update.hypothesis]
    assert (hypotheses[0].segment.stop_reason, hypotheses[0].retry_may_help) == ("loop", True)


@pytest.mark.slow
def test_the_longest_text(model: WhisperModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has 224 tokens, fewer after a long prompt, and is decoded again in parts."""
    numbers = [
        token for number in range(1000, 1400) for token in model.vocabulary.encode(f" {number * 7919 % 9973}")
    ]
    writes(model, monkeypatch, numbers)
    for options, most in (
        (TranscribeOptions(), 224), (TranscribeOptions(prev_text="word " * 300), 448 - 228),
        (TranscribeOptions(max_tokens=300), 224), (TranscribeOptions(exact_tokens=300), 224),
        (TranscribeOptions(max_tokens=5), 5),
    ):  # fmt: skip
        session = model.session(options)
        session.add([request(CLIPS[0])])
        hypotheses = [update.hypothesis for _ in range(230) for update in session.step() if update.hypothesis]
        assert hypotheses[0].segment.tokens == most
        assert hypotheses[0].segment.stop_reason == "budget"
        assert hypotheses[0].retry_may_help == (options.max_tokens is None and options.exact_tokens is None)


def test_incomplete_characters_are_held_back(model: WhisperModel, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = next(ids for ids in map(model.vocabulary.encode, "房龘鬱䯂") if len(ids) >= 2)
    writes(model, monkeypatch, ids)
    session = model.session(TranscribeOptions())
    session.add([request(CLIPS[0])])
    texts = [update.text for _ in range(len(ids) + 1) for update in session.step() if update.text is not None]
    assert texts == [] or "\N{REPLACEMENT CHARACTER}" not in "".join(texts)


def test_an_error_loses_all_rows_of_the_decoder(model: WhisperModel, monkeypatch: pytest.MonkeyPatch) -> None:
    session = model.session(TranscribeOptions())
    rows = session.add([request(CLIPS[0]), request(CLIPS[1])])
    session.drop(rows[0])
    with monkeypatch.context() as patched:
        patched.setattr(model, "features", lambda samples: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            session.add([request(CLIPS[0])])
    assert session.reset() == set()
    session.step()
    assert session.reset() == {rows[1]}
    assert session.step() == []


def test_the_number_of_rows_depends_on_memory(shared: WhisperModel, monkeypatch: pytest.MonkeyPatch) -> None:
    module = "funasr_cli.families.whisper.session.available_bytes"
    monkeypatch.setattr(module, lambda: 1 << 40)
    assert shared.session(TranscribeOptions()).max_rows == 16
    monkeypatch.setattr(module, lambda: 1 << 27)
    rows = shared.session(TranscribeOptions()).max_rows
    able = shared.capabilities
    monkeypatch.setattr(shared, "capabilities", dataclasses.replace(able, translation=False))
    assert 1 < rows < shared.session(TranscribeOptions()).max_rows < 16  # no row can have a second text
    monkeypatch.setattr(module, lambda: 0)
    assert shared.session(TranscribeOptions()).max_rows == 1


def test_the_model_itself(shared: WhisperModel) -> None:
    encoded = shared.encode(CLIPS[1])
    assert encoded.frames.shape == (125, 128)
    assert (encoded.audio_embeddings, encoded.frame_duration_s) == (None, 0.02)
    trace = shared.trace(CLIPS[1], TranscribeOptions(max_tokens=4))
    assert trace.logits.shape == (4, 51865)
    assert len(trace.token_ids) == 4
    with refused("ctc-missing"):
        shared.read_ctc(CLIPS[1])
    assert shared.prompt(TranscribeOptions()) is None
    with refused("audio-too-short"):
        shared.encode(np.zeros(0, np.float32))


@pytest.mark.slow
def test_windows_are_filled(shared: WhisperModel) -> None:
    """Every second of a recording is in the ledger, and no segment is longer than a window."""
    assert (shared.window_s, shared.longest_segment_s) == (30.0, 30.0)
    samples = np.concatenate([CLIPS[2], CLIPS[2][: 16000 * 5]])
    options = TranscribeOptions(vad=False, max_tokens=3)
    transcript = Recognizer(shared).transcribe(samples, options, sample_rate_hz=16000)
    assert len(transcript.segments) == 2
    assert all(segment.duration_s <= 30 for segment in transcript.segments)
    ledger = transcript.ledger
    assert ledger.transcribed_s + ledger.repaired_s + ledger.failed_s + ledger.silence_s == pytest.approx(35)


@pytest.mark.slow
@pytest.mark.parametrize("word_times", [False, True])
def test_joined_segments_have_time_tokens(
    model: WhisperModel, monkeypatch: pytest.MonkeyPatch, word_times: bool
) -> None:
    """They share a batch with others, and each text is the one that it has alone."""
    timed: list[bool] = []
    prompt_ids = model.prompt_ids

    def spy(options: TranscribeOptions, *arguments: Any, **rest: Any) -> list[int]:
        timed.append(options.segment_times)
        return prompt_ids(options, *arguments, **rest)

    def texts(requests: list[SegmentRequest]) -> list[str]:
        session = model.session(TranscribeOptions(language="en", max_tokens=12, word_times=word_times))
        found = dict.fromkeys(session.add(requests), "")
        while len(session._rows):
            found |= {update.row: update.hypothesis.segment.text for update in session.step() if update.hypothesis}
        return list(found.values())

    joined = [False, True, True]
    requests = [
        dataclasses.replace(one, audio=dataclasses.replace(one.audio, joined=flag))
        for one, flag in zip(map(request, CLIPS), joined, strict=False)
    ]
    alone = [text for one in requests for text in texts([one])]
    monkeypatch.setattr(model, "prompt_ids", spy)
    assert texts(requests) == alone
    assert timed[: len(requests)] == joined[: len(requests)]


def test_what_is_known_of_a_size_before_its_download() -> None:
    """Languages, translation and longest segments; for base, compared with the true model."""
    known = {alias: download for alias, download in registry.downloads().items() if alias.startswith("whisper-")}
    able = {alias.removeprefix("whisper-"): download.capabilities for alias, download in known.items()}
    assert all(download.longest_segment_s == WhisperModel.longest_segment_s for download in known.values())
    counts = {size: len(each.languages) for size, each in able.items() if each}
    assert {size for size, count in counts.items() if count == 100} == {"large-v3", "large-v3-turbo", "turbo"}
    assert {size for size, count in counts.items() if count == 1} == {size for size in able if ".en" in size}
    assert set(counts.values()) == {1, 99, 100}
    assert {size for size, each in able.items() if each and not each.translation} == {
        "turbo", "large-v3-turbo", "tiny.en", "base.en", "small.en", "medium.en",
    }  # fmt: skip
    base = open_checkpoint(real_part("weights/whisper-base-hf"), "openai/whisper-base").config
    assert able["base"] == capabilities(base)
