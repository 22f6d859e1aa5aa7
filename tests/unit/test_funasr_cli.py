"""The public Python API: the examples of docs/python.md, inputs, results, and resources."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import inspect
import io
import itertools
import json
import re
import shutil
import subprocess
import sys
import textwrap
import threading
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest
import soundfile
from support.errors import refused
from support.running import environment
from support.translating import TAUGHT

import funasr_cli
from funasr_cli import Read, demo
from funasr_cli.audio.decode import Audio, load_audio, open_recording
from funasr_cli.compute.backend import mx
from funasr_cli.families.batches import Frames
from funasr_cli.families.fun_asr_nano.model import NanoModel
from funasr_cli.families.fun_asr_nano.prompt import prompt_token_ids
from funasr_cli.options import DEFAULTS, TranscribeOptions
from funasr_cli.pipeline import Recognizer
from funasr_cli.transcript import STAGES, Transcript

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)
CLIPS = demo.clips()
RATE_HZ = 16000


@pytest.fixture(scope="module")
def asr() -> Recognizer:
    """A loaded recognizer that has been used once, since its filter bank tables are made on first use and kept."""
    recognizer = funasr_cli.load("demo")
    recognizer.encode_audio(CLIPS[0].path)
    return recognizer


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    return soundfile.read(CLIPS[0].path, dtype="float32")[0]


def same(one: Transcript, other: Transcript) -> bool:
    """Return whether transcripts are equal except for source and timings."""
    return one == dataclasses.replace(other, source=one.source, timings=one.timings)


@pytest.mark.slow
def test_every_example_of_the_page_prints_its_output(
    small_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, clip in (("a.wav", CLIPS[0]), ("b.wav", CLIPS[3])):
        soundfile.write(name, *soundfile.read(clip.path))
    shutil.copytree(small_checkpoint, "my-checkpoint")
    shutil.copytree(TAUGHT, "my-translator")
    page = (ROOT / "docs/python.md").read_text(encoding="utf-8")
    blocks = BLOCK.findall(page)
    assert len(blocks) == page.count("```python") > 10
    names: dict[str, Any] = {"__name__": "page"}
    for code, printed in blocks:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(code, "docs/python.md", "exec", dont_inherit=True), names)
        assert out.getvalue().strip() == printed.strip(), code


def test_readme_and_package_show_the_same_example() -> None:
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("## From Python")[1]
    [(code, _), *_] = BLOCK.findall(section)
    assert funasr_cli.__doc__ is not None
    assert textwrap.indent(code, "    ", lambda line: bool(line.strip())) in funasr_cli.__doc__


def test_all_names_exist_and_no_others() -> None:
    for name in funasr_cli.__all__:
        assert getattr(funasr_cli, name) is not None
    assert funasr_cli.Recognizer is Recognizer
    with pytest.raises(AttributeError, match="module 'funasr_cli' has no attribute 'transcribe'"):
        funasr_cli.transcribe  # type: ignore[attr-defined]  # noqa: B018


def test_earlier_names_remain_for_one_release(asr: Recognizer) -> None:
    assert (funasr_cli.Draft, funasr_cli.Settled) == (funasr_cli.PartialText, funasr_cli.SegmentFinished)
    transcript, encoded = asr.transcribe(CLIPS[0].path), asr.encode_audio(CLIPS[0].path)
    assert transcript.timings.passes == transcript.timings.decoder_calls > 0
    assert encoded.audio_rows is encoded.audio_embeddings is not None
    assert asr.has_ctc is asr.capabilities.word_times is True


def test_every_type_of_the_public_functions_is_exported() -> None:
    """These are the parameters' and results' types, and the types of their fields."""
    methods = (Recognizer.transcribe, Recognizer.stream, Recognizer.run, Recognizer.encode_audio)
    results = (funasr_cli.Transcript, funasr_cli.Segment, *get_args(funasr_cli.Event))
    hints = " ".join(str(hint) for use in (*methods, *results) for hint in inspect.get_annotations(use).values())
    met = set(re.findall(r"\bfunasr_cli\.(?:\w+\.)+(\w+)", hints))
    assert {"EncodedAudio", "Failed", "Read", "Score", "Source", "Timings"} <= met
    assert met <= set(funasr_cli.__all__)
    assert funasr_cli.AudioInput == inspect.get_annotations(Recognizer.transcribe)["audio"]


@pytest.mark.parametrize(
    ("module", "heavy"),
    [("funasr_cli", {"numpy", "mlx", "typer"}), ("funasr_cli.writers", {"rich", "numpy", "mlx", "typer"})],
)
def test_heavy_modules_are_imported_only_when_needed(module: str, heavy: set[str]) -> None:
    script = f"import sys, {module}; print({heavy} & set(sys.modules), funasr_cli.Recognizer.__module__)"
    done = subprocess.run([sys.executable, "-c", script], env=environment(), capture_output=True, timeout=60)
    assert (done.stdout.decode(), done.stderr.decode()) == ("set() funasr_cli.pipeline\n", "")


def test_a_model_by_its_path(tmp_path: Path) -> None:
    assert funasr_cli.load(demo.MODEL).model.loaded.folder == demo.MODEL
    for use in (funasr_cli.load, funasr_cli.convert):
        with refused("model-missing", tmp_path / "missing"):
            use(tmp_path / "missing")


@pytest.mark.slow
def test_the_same_recording_in_any_form(asr: Recognizer, samples: np.ndarray) -> None:
    path = CLIPS[0].path
    expected = asr.transcribe(path)
    assert expected.text == CLIPS[0].written
    assert same(expected, asr.transcribe(str(path)))
    assert same(expected, asr.transcribe(open_recording(path, RATE_HZ)))
    assert same(expected, asr.transcribe(samples, sample_rate_hz=RATE_HZ))
    for form in (
        samples.astype(np.float64),
        np.stack([samples, samples], axis=1),
        (samples * 2**15).astype(np.int16),
        ((samples * 2**15).astype(np.int32) + 2**15).astype(np.uint16),
    ):
        assert same(expected, asr.transcribe(form, sample_rate_hz=RATE_HZ)), form.dtype
    assert asr.transcribe(np.repeat(samples, 3), sample_rate_hz=3 * RATE_HZ).text == expected.text


@pytest.mark.parametrize(
    ("audio", "sample_rate_hz", "value"),
    [
        (np.zeros(9, np.float32), None, "sample_rate_hz"), ("a.wav", RATE_HZ, "a.wav: sample_rate_hz"),
        (Path("a.wav"), RATE_HZ, "a.wav: sample_rate_hz"), ([0.0, 0.1], RATE_HZ, "list"), (b"RIFF", None, "bytes"),
        (Audio("a.wav", np.zeros(9, np.float32), RATE_HZ), RATE_HZ, "a.wav: sample_rate_hz"),
    ],
)  # fmt: skip
def test_sample_rates_belong_to_samples(
    asr: Recognizer, audio: Any, sample_rate_hz: int | None, value: str
) -> None:
    for use in (asr.transcribe, asr.stream, asr.encode_audio, lambda a, **o: asr.transcribe_batch([a], **o)):
        with refused("argument-type", value):
            use(audio, sample_rate_hz=sample_rate_hz)


def test_timings_have_all_stages(asr: Recognizer) -> None:
    """JSON's schema has them as well."""
    timings = asr.transcribe(CLIPS[0].path).timings
    stages = {f"{stage}_s" for stage in STAGES}
    assert all(getattr(timings, stage) > 0 for stage in stages)
    assert timings.tokens_per_s == (timings.tokens - 1) / timings.decode_s > 0
    assert timings.first_token_s <= timings.total_s
    schema = json.loads((ROOT / "docs/transcript.schema.json").read_text(encoding="utf-8"))
    listed = re.findall(r'"(\w+_s)"', json.dumps(schema["$defs"]["timings"]["properties"]))
    others = ("first_token_s", "total_s", "tokens_per_s", "post_s")
    assert {name for name in listed if name not in others} == stages


def test_keywords_change_options(asr: Recognizer) -> None:
    options = TranscribeOptions(language="en", itn=False)
    assert asr.transcribe(CLIPS[0].path, options).text == CLIPS[0].spoken
    assert same(
        asr.transcribe(CLIPS[0].path, options, itn=True, max_tokens=2),
        asr.transcribe(CLIPS[0].path, TranscribeOptions(language="en", max_tokens=2)),
    )
    assert options == TranscribeOptions(language="en", itn=False)
    for use in (asr.transcribe, asr.stream, lambda audio, **options: asr.transcribe_batch([audio], **options)):
        with pytest.raises(TypeError, match="no_such_option"):
            use(Path("a.wav"), no_such_option=1)  # type: ignore[arg-type]
        with refused("option-value", "--max-tokens is 0"):
            use(Path("a.wav"), max_tokens=0)


@pytest.mark.slow
def test_several_results_are_in_order(asr: Recognizer) -> None:
    paths = [clip.path for clip in CLIPS[:4]]
    recordings = [paths[0], str(paths[1]), load_audio(paths[2], RATE_HZ), paths[3]]
    transcripts = asr.transcribe_batch(recordings, batch_size=2)
    assert [transcript.source for transcript in transcripts] == list(map(str, paths))
    assert [transcript.text for transcript in transcripts] == [clip.written for clip in CLIPS[:4]]
    with refused("audio-missing", "missing.wav"):
        asr.transcribe_batch([paths[0], "missing.wav"])
    with refused("argument-type", "a.wav"):
        asr.transcribe_batch("a.wav")


@pytest.mark.slow
def test_events_of_a_stream(asr: Recognizer) -> None:
    events = list(asr.stream(CLIPS[0].path, language="en"))
    assert {type(event) for event in events} == {
        funasr_cli.PartialText,
        funasr_cli.SegmentFinished,
        funasr_cli.Finished,
    }
    finished = events[-1]
    assert isinstance(finished, funasr_cli.Finished)
    assert same(finished.transcript, asr.transcribe(CLIPS[0].path, language="en"))
    settled = [event.segment for event in events if isinstance(event, funasr_cli.SegmentFinished)]
    assert tuple(settled) == finished.transcript.segments
    drafts = [event.text for event in events if isinstance(event, funasr_cli.PartialText)]
    assert drafts[0] == ""
    assert drafts[-2:] == [CLIPS[0].written, None]


def test_events_of_each_input_in_a_run(asr: Recognizer) -> None:
    """They range from its opening to its last event."""
    paths = [CLIPS[0].path, Path("missing.wav"), CLIPS[3].path]
    openers = [partial(open_recording, path, RATE_HZ) for path in paths]
    events = list(asr.run(openers, TranscribeOptions(confidence=True)))
    assert {type(event) for event in events} == set(get_args(funasr_cli.Event))
    for source, clip in ((0, CLIPS[0]), (2, CLIPS[3])):
        own = [event for event in events if event.source == source]
        duration_s = soundfile.info(clip.path).duration
        reads = [(event.start_s, event.read_s, event.expected_s) for event in own if isinstance(event, Read)]
        assert reads[0] == (0.0, 0.0, duration_s)
        assert reads[-1] == (0.0, duration_s, duration_s)
        finished = own[-1]
        assert isinstance(finished, funasr_cli.Finished)
        assert finished.transcript.text == clip.written
        scores = finished.transcript.segments[0].scores
        assert "".join(score.text for score in scores) == clip.written
    [failed] = [event for event in events if event.source == 1]
    assert isinstance(failed, funasr_cli.Failed)
    assert failed.error.code == "audio-missing"


def cache_limit() -> int:
    limit = mx.set_cache_limit(1)
    mx.set_cache_limit(limit)
    return int(limit)


def held() -> tuple[int, int, int]:
    """Return MLX's memory in use and its limits."""
    return mx.get_active_memory(), mx.get_cache_memory(), cache_limit()


@pytest.mark.slow
@pytest.mark.parametrize("end", ["close", "drop", "throw"])
def test_an_abandoned_stream_frees_everything(asr: Recognizer, samples: np.ndarray, end: str) -> None:
    asr.transcribe(CLIPS[0].path)
    gc.collect()
    mx.clear_cache()  # of arrays that the collector has just freed
    before, threads = held(), threading.enumerate()
    long = np.tile(np.append(samples, np.zeros(RATE_HZ, np.float32)), 30)
    events = asr.stream(long, sample_rate_hz=RATE_HZ, batch_size=2)
    while not isinstance(next(events), funasr_cli.SegmentFinished):
        pass
    assert set(threading.enumerate()) - set(threads)  # one thread reads ahead
    assert cache_limit() != before[-1]
    if end == "close":
        events.close()
        assert list(events) == []
    elif end == "drop":
        del events
    else:
        with pytest.raises(KeyboardInterrupt):
            events.throw(KeyboardInterrupt())
    assert held() == before
    assert set(threading.enumerate()) <= set(threads)


@pytest.mark.slow
def test_interleaved_streams(asr: Recognizer) -> None:
    """The stream that ends first does not affect the other one."""
    gc.collect()
    mx.clear_cache()
    before = held()
    first, second = asr.stream(CLIPS[0].path), asr.stream(CLIPS[3].path)
    next(first)
    next(second)
    limit = cache_limit()
    texts = []
    for events in (first, second):
        assert cache_limit() == limit != before[-1]
        *_, finished = events
        assert isinstance(finished, funasr_cli.Finished)
        texts.append(finished.transcript.text)
    assert texts == [CLIPS[0].written, CLIPS[3].written]
    del finished
    assert held() == before


def as_numpy(array: mx.array | np.ndarray) -> np.ndarray:
    """Return what either engine has computed as float32."""
    return np.array(mx.array(array).astype(mx.float32))


@pytest.mark.slow
def test_encoded_audio_equals_the_decoders_input(asr: Recognizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recording is a single segment."""
    seen: list[tuple[list[Frames], list[mx.array]]] = []
    original = NanoModel.prompts

    def prompts(self: NanoModel, encoded: list[Frames], *rest: Any) -> list[mx.array]:
        seen.append((encoded, original(self, encoded, *rest)))
        return seen[-1][1]

    monkeypatch.setattr(NanoModel, "prompts", prompts)
    for clip in CLIPS[:3]:
        seen.clear()
        transcript = asr.transcribe(clip.path, vad=False)
        [([frames], [prompt])] = seen
        audio = asr.encode_audio(clip.path)
        assert audio.frame_duration_s == 0.06
        assert len(audio.frames) == pytest.approx(transcript.duration_s / audio.frame_duration_s, abs=2)
        np.testing.assert_array_equal(as_numpy(audio.frames), as_numpy(frames))
        before, after = prompt_token_ids(DEFAULTS, asr.model.config.prompt, asr.model.tokenizer)
        np.testing.assert_array_equal(
            as_numpy(audio.audio_embeddings), as_numpy(prompt[len(before) : -len(after)])
        )
        assert len(audio.audio_embeddings) == len(prompt) - len(before) - len(after) > 0


def test_samples_are_encoded_like_their_file(asr: Recognizer, samples: np.ndarray) -> None:
    from_file, from_samples = asr.encode_audio(CLIPS[0].path), asr.encode_audio(samples, sample_rate_hz=RATE_HZ)
    np.testing.assert_array_equal(as_numpy(from_file.frames), as_numpy(from_samples.frames))
    with refused("audio-too-short", "array"):
        asr.encode_audio(samples[:1], sample_rate_hz=RATE_HZ)
    with refused("sample-rate", 8000, 16000):
        asr.encode_audio(load_audio(CLIPS[0].path, 8000))


def test_too_much_audio_for_one_batch(asr: Recognizer, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = partial(itertools.repeat, np.zeros(10 * RATE_HZ, np.float32))
    endless = SimpleNamespace(name="endless", sample_rate_hz=RATE_HZ, expected_s=None, start_s=0.0, blocks=blocks)
    with refused("audio-too-long", "endless", 300):
        asr.encode_audio(endless)
    monkeypatch.setattr(asr.model, "longest_segment_s", 1.0)
    assert len(asr.encode_audio(np.zeros(RATE_HZ, np.float32), sample_rate_hz=RATE_HZ).frames) == 17
    with refused("audio-too-long", "array"):
        asr.encode_audio(np.zeros(RATE_HZ + 1, np.float32), sample_rate_hz=RATE_HZ)


IN_THREADS = """
import threading
from concurrent.futures import ThreadPoolExecutor
import funasr_cli
from funasr_cli import Read, demo

clips = demo.clips()[:4]

def work(_):
    texts = [asr.transcribe(clip.path).text for clip in clips]
    assert texts == [clip.written for clip in clips], texts
    frames = asr.encode_audio(clips[0].path).frames
    return float(frames.sum()), frames

with ThreadPoolExecutor(1) as pool:
    asr = pool.submit(funasr_cli.load, "demo").result()
for workers in (1, 3, 3):
    with ThreadPoolExecutor(workers) as pool:
        for total, frames in pool.map(work, range(workers)):
            assert total == float(frames.sum())
"""


def test_threads_load_and_transcribe_repeatedly_and_in_parallel() -> None:
    """Their results can be used in computations, in the same and in other threads."""
    done = subprocess.run([sys.executable, "-c", IN_THREADS], env=environment(), capture_output=True, timeout=120)
    assert (done.returncode, done.stderr.decode()) == (0, "")
