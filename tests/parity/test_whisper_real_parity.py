"""Whisper base with OpenAI's weights, compared with openai-whisper and Transformers, stage by stage and live.

The weights and the recorded speech are in the cache that `make real-data` fills; without them, the tests are
skipped, and without openai-whisper in the reference's environment, too.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.native import LIBRARY, WITHOUT
from support.parity.live import REPOSITORY, reference_python, run_reference
from support.real_data import real_part

from funasr_cli.audio.decode import load_audio
from funasr_cli.audio.segment import AudioSegment
from funasr_cli.compute.backend import mx
from funasr_cli.decoding.continuous import BatchDecoder
from funasr_cli.decoding.sampling import make_sampler
from funasr_cli.families.load import load_checkpoint
from funasr_cli.families.open import open_checkpoint
from funasr_cli.options import MLX, NATIVE, TranscribeOptions
from funasr_cli.speech_model import SegmentRequest
from tools.accuracy.real_speech import read_phrases
from tools.real_data.cache import SPEECH, WHISPER

needs_library = pytest.mark.skipif(LIBRARY is None, reason=WITHOUT)
pytestmark = [pytest.mark.slow, pytest.mark.process]

SCRIPTS = REPOSITORY / "tests/support/parity"
EVERY = {"en": 76, "es": 140, "fr": 140}  # which phrases of each language
MARGIN = 1e-3  # of the range of logits: rounding may decide smaller margins
ENCODER_ERROR = 1e-4  # of the largest value
STEP_S = 0.02
KINDS = {"plain": False, "timed": True}  # without and with time tokens


Reference = tuple[dict[str, np.ndarray], dict[str, np.ndarray], Path]  # as the fields of `Run`


@dataclasses.dataclass
class Run:
    """What both programs compute for the same clips."""

    model: Any
    clips: dict[str, np.ndarray]  # samples (samples,) at 16 kHz; a name begins with the language
    arrays: dict[str, np.ndarray]  # of openai-whisper
    folder: Path  # contains the clips as audio.npz

    def __post_init__(self) -> None:
        network = self.model.network
        self.features = {name: self.model.features(clip) for name, clip in self.clips.items()}
        self.encoded = {name: network.encode([features])[0] for name, features in self.features.items()}
        self.memory = {name: network.decoder.memory([rows])[0] for name, rows in self.encoded.items()}

    def logits(self, name: str, timed: bool, token_ids: list[int], language: str | None = None) -> np.ndarray:
        """Return logits (tokens + 1, vocabulary) after the prompt and after each token, before the rules."""
        ids, count = [*self.prompt(language or name, timed), *token_ids], len(token_ids) + 1
        return np.array(self.model.network.decoder.logits_after(ids, self.memory[name], count))

    def prompt(self, name: str, timed: bool) -> list[int]:
        language = name.split("-")[0]
        found: list[int] = self.model.prompt_ids(TranscribeOptions(segment_times=timed), language)
        return found

    def written(self, name: str, timed: bool) -> list[int]:
        """Return the tokens of greedy decoding with the rules, without the end."""
        decoder, options = self.model.network.decoder, TranscribeOptions(segment_times=timed)
        batch = BatchDecoder(decoder, make_sampler(options))
        prompt = decoder.embed(mx.array(self.prompt(name, timed)))
        batch.add([prompt], memory=[self.memory[name]], rules=[self.model.rules(options)])
        tokens: list[int] = []
        while not tokens or tokens[-1] != self.model.vocabulary.end:
            tokens += [token.token_id for token in batch.step()]
        return tokens[:-1]


def recorded() -> dict[str, Path]:
    """Return a few phrases of each language, of 1 s and more."""
    found = {}
    for language, every in EVERY.items():
        real_part(f"{SPEECH}/{language}")
        spoken = [phrase for phrase in read_phrases(language) if phrase.duration_s >= 1]
        found |= {f"{language}-{index}": spoken[index].path for index in range(0, len(spoken), every)}
    return found


def recorded_by_openai(clips: dict[str, np.ndarray], folder: Path, *, stages: bool) -> dict[str, np.ndarray]:
    """Run openai-whisper on clips whose names begin with their language; skip the test if it is not installed."""
    weights = real_part(f"{WHISPER}-openai") / "base.pt"
    has_whisper = subprocess.run([reference_python(), "-c", "import whisper"], capture_output=True, check=False)
    if has_whisper.returncode:
        pytest.skip("openai-whisper is not in the reference's environment; `make test` installs it")
    np.savez(folder / "audio.npz", **clips)
    languages = {name: name.split("-")[0] for name in clips}
    job = {"weights": str(weights), "audio": str(folder / "audio.npz"), "languages": languages, "stages": stages}
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
    run_reference(SCRIPTS / "record_openai_whisper.py", folder / "job.json", folder / "out.npz")
    return dict(np.load(folder / "out.npz"))


def load(dtype: str = "float32", engine: str = MLX) -> Any:
    source = real_part(f"{WHISPER}-hf")
    return load_checkpoint(open_checkpoint(source, source.name), source, dtype, engine)


@pytest.fixture(scope="module", params=["bundled", pytest.param("recorded", marks=pytest.mark.full)])
def reference(
    request: pytest.FixtureRequest, en_flac: Path, zh_wav: Path, tmp_path_factory: pytest.TempPathFactory
) -> Reference:
    """Clips, and what openai-whisper computes for them."""
    folder = tmp_path_factory.mktemp("openai")
    paths = {"en": en_flac, "zh": zh_wav} if request.param == "bundled" else recorded()
    clips = {name: load_audio(path, 16000).samples for name, path in paths.items()}
    return clips, recorded_by_openai(clips, folder, stages=True), folder


@pytest.fixture(scope="module", params=[MLX, pytest.param(NATIVE, marks=needs_library)])
def run(request: pytest.FixtureRequest, reference: Reference) -> Run:
    """Both programs' results, ours in float32 on either engine. Do not change them."""
    return Run(load(engine=request.param), *reference)


def assert_close(encoded: Any, expected: np.ndarray) -> None:
    """Compare rows of the encoder. Their largest values are near 24; torch itself is 2e-5 of that from float64."""
    assert np.abs(np.array(encoded) - expected).max() < ENCODER_ERROR * np.abs(expected).max()


def test_features_and_encoder(run: Run) -> None:
    for name in run.clips:
        # torch computes its spectrum in float32, which shows in the quietest bins; see the test of Transformers.
        assert np.abs(run.features[name] - run.arrays[f"{name}/features"]).max() < 5e-5, name
        assert_close(run.encoded[name], run.arrays[f"{name}/encoder"])


@pytest.mark.parametrize("kind", KINDS)
def test_logits(run: Run, kind: str) -> None:
    """They differ little, and the likeliest token is the same wherever it leads by more than rounding."""
    for name in run.clips:
        expected = run.arrays[f"{name}/{kind}/logits"]
        found = run.logits(name, KINDS[kind], run.arrays[f"{name}/{kind}/tokens"].tolist())
        spread = np.ptp(expected)
        assert np.abs(found - expected).max() < 1e-3 * spread, name
        second, first = np.partition(expected, -2, axis=-1)[:, -2:].T
        is_clear = first - second > MARGIN * spread
        assert (found.argmax(-1) == expected.argmax(-1))[is_clear].all(), name


@pytest.mark.parametrize("kind", KINDS)
def test_texts_and_time_tokens(run: Run, kind: str) -> None:
    for name in run.clips:
        assert run.written(name, KINDS[kind]) == run.arrays[f"{name}/{kind}/tokens"].tolist(), name


def test_languages(run: Run) -> None:
    """The likeliest is the same, and so is the probability of no speech."""
    for name in run.clips:
        [witness] = run.model.listen([run.memory[name]], TranscribeOptions())
        assert witness.language == run.arrays[f"{name}/detected"], name
        assert witness.no_speech == pytest.approx(float(run.arrays[f"{name}/no_speech"]), abs=1e-4)


def test_word_times(run: Run) -> None:
    """At least 95 % of the words begin and end within one step of where openai-whisper finds them."""
    apart_s = []
    for name, clip in run.clips.items():
        words = run.arrays[f"{name}/words"]  # (words, 3): number of tokens, start, end
        text = [token for token in run.arrays[f"{name}/plain/tokens"].tolist() if token < run.model.vocabulary.end]
        rows = run.model.rows_of(clip)
        begins_s = run.model.token_times(run.memory[name], name.split("-")[0], text, rows)
        borders = np.cumsum([0, *words[:, 0].astype(int)])  # the last word is the end of the text, if it is one
        found = begins_s[np.minimum(borders, len(text))]
        apart_s += [*np.abs(found[:-1] - words[:, 1]), *np.abs(found[1:] - words[:, 2])]
    assert np.mean(np.array(apart_s) < STEP_S + 1e-6) >= 0.95


@pytest.mark.full
def test_transformers(run: Run) -> None:
    """Features, encoder, and logits after the same tokens, all with an English prompt."""
    forced = {name: run.arrays[f"{name}/plain/tokens"].tolist() for name in run.clips}
    job = {
        "checkpoint": str(real_part(f"{WHISPER}-hf")), "audio": str(run.folder / "audio.npz"), "forced": forced,
        "prompt": run.prompt("en", timed=False), "never": [], "not_first": [], "steps": 0,
    }  # fmt: skip
    (run.folder / "hf.json").write_text(json.dumps(job), encoding="utf-8")
    run_reference(SCRIPTS / "record_whisper.py", run.folder / "hf.json", run.folder / "hf.npz")
    arrays = dict(np.load(run.folder / "hf.npz"))
    for name in run.clips:
        assert np.abs(run.features[name] - arrays[f"{name}/exact_features"]).max() < 1e-5, name
        assert_close(run.encoded[name], arrays[f"{name}/encoder"])
        found = run.logits(name, timed=False, token_ids=forced[name], language="en")
        assert np.abs(found - arrays[f"{name}/logits"]).max() < 1e-3 * np.ptp(found), name


@pytest.mark.full
@needs_library
def test_all_english_phrases(tmp_path: Path) -> None:
    """At least 300 of 304 texts are the same; the others part where two tokens are almost equally likely."""
    real_part(f"{SPEECH}/en")
    paths = [phrase.path for phrase in read_phrases("en") if phrase.duration_s >= 1]
    clips = {f"en-{index}": load_audio(path, 16000).samples for index, path in enumerate(paths)}
    arrays, model = recorded_by_openai(clips, tmp_path, stages=False), load(engine=NATIVE)
    found = decoded(model, TranscribeOptions(), clips)
    assert len(found) == 304
    assert {language for _, language in found.values()} == {"en"}
    different = {}
    for name, (token_ids, _) in found.items():
        expected = arrays[f"{name}/plain/tokens"].tolist()
        if token_ids != expected:
            same = [one == other for one, other in zip(token_ids, expected, strict=False)]
            different[name] = arrays[f"{name}/margins"][(*same, False).index(False)]
    assert len(different) <= 4
    assert max(different.values(), default=0) < MARGIN


def decoded(
    model: Any, options: TranscribeOptions, clips: dict[str, np.ndarray]
) -> dict[str, tuple[list[int], str]]:
    """Return each clip's tokens and language."""
    session, waiting, names, found = model.session(options), list(clips), dict[int, str](), {}
    while waiting or names:
        while waiting and len(names) < session.max_rows:
            name = waiting.pop(0)
            frames = np.ones(len(clips[name]) // 512)
            [row] = session.add([SegmentRequest(0, AudioSegment(0, clips[name], frames), first=True)])
            names[row], texts = name, session._rows[row].texts
            found[name] = texts[0].stream.token_ids, session._rows[row].witness.language
        for update in session.step():
            if update.hypothesis:
                del names[update.row]
    return found
