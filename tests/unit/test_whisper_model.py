"""Whisper's sizes, prompts, and the model without a session.

Numerical results: tests/parity/test_whisper_parity.py, and with real weights tests/accuracy/test_whisper_real.py.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from support.errors import refused
from support.real_data import real_part
from support.whisper import random_tensors, write_mlx
from support.whisper_rows import CLIPS, load_whisper

from funasr_cli.families import registry
from funasr_cli.families.open import open_checkpoint
from funasr_cli.families.whisper.config import capabilities, usual_heads
from funasr_cli.families.whisper.model import WhisperModel
from funasr_cli.languages import WHISPER_TOKEN_OF
from funasr_cli.options import TranscribeOptions
from funasr_cli.pipeline import Recognizer


def test_what_sizes_can_do(shared_whisper: WhisperModel) -> None:
    config = shared_whisper.config
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
    assert WHISPER_TOKEN_OF["fil"] == "tl"


def test_alignment_heads_by_size(shared_whisper: WhisperModel) -> None:
    encoder, decoder = shared_whisper.config.encoder, shared_whisper.config.decoder

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
def test_prompts(shared_whisper: WhisperModel, language: str) -> None:
    special = shared_whisper.vocabulary.special
    token = {"german": "de", "zh-CN": "zh", "Javanese": "jw"}.get(language, language)
    code = {"german": "de", "zh-CN": "zh", "tl": "fil", "Javanese": "jv"}.get(language, language)
    options = TranscribeOptions(language=language)
    names = ["startoftranscript", token, "transcribe", "notimestamps"]
    assert shared_whisper.prompt_ids(options, code) == [special[name] for name in names]
    timed = shared_whisper.prompt_ids(dataclasses.replace(options, segment_times=True), code, translate=True)
    assert timed == [special[name] for name in ["startoftranscript", token, "translate"]]


def test_text_before_the_recording(shared_whisper: WhisperModel) -> None:
    special, encode = shared_whisper.vocabulary.special, shared_whisper.vocabulary.encode
    options = TranscribeOptions(hotwords=("MLX", "Kubernetes"), prev_text=" Well then. ")
    both = shared_whisper.prompt_ids(options, "en")
    assert both[:-4] == [special["startofprev"], *encode(" MLX, Kubernetes."), *encode(" Well then.")]
    later = shared_whisper.prompt_ids(options, "en", first=False)
    assert later[:-4] == [special["startofprev"], *encode(" MLX, Kubernetes.")]
    long = dataclasses.replace(options, prev_text="word " * 400)
    ids = shared_whisper.prompt_ids(long, "en")
    assert len(ids) == 224 + 4  # half of the positions
    assert ids[1 : 1 + len(encode(" MLX, Kubernetes."))] == encode(" MLX, Kubernetes.")  # never cut off
    with refused("prompt-too-long", 223):
        shared_whisper.session(TranscribeOptions(hotwords=("word",) * 224))


def test_hotwords_that_are_too_long_are_refused_before_their_row_joins_others(
    shared_whisper: WhisperModel,
) -> None:
    with refused("prompt-too-long", 223):
        shared_whisper.prompt(TranscribeOptions(hotwords=("word",) * 224))


def test_languages_of_an_english_model(tmp_path: Path) -> None:
    folder = write_mlx(tmp_path / "base.en", random_tensors(vocab_size=51864))
    model = load_whisper(folder)
    assert model.capabilities.languages == ("en",)
    assert model.prompt_ids(TranscribeOptions(), "en") == [
        model.vocabulary.special[name] for name in ("startoftranscript", "notimestamps")
    ]
    with refused("language-unknown"):
        model.session(TranscribeOptions(language="de"))
    with refused("option-unsupported"):
        Recognizer(model).refuse_unsupported(TranscribeOptions(translate=True))


def test_the_model_itself(shared_whisper: WhisperModel) -> None:
    encoded = shared_whisper.encode(CLIPS[1])
    assert encoded.frames.shape == (125, 128)
    assert (encoded.audio_embeddings, encoded.frame_duration_s) == (None, 0.02)
    trace = shared_whisper.trace(CLIPS[1], TranscribeOptions(max_tokens=4))
    assert trace.logits.shape == (4, 51865)
    assert len(trace.token_ids) == 4
    with refused("ctc-missing"):
        shared_whisper.read_ctc(CLIPS[1])
    assert shared_whisper.prompt(TranscribeOptions()) is None
    with refused("audio-too-short"):
        shared_whisper.encode(np.zeros(0, np.float32))


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
