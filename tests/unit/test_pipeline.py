"""The whole pipeline on real networks, valid and damaged: loops, word times, devices out of memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import soundfile
import torch
from support.checkpoints import write_checkpoint
from support.errors import refused
from support.running import invoke
from support.small import convert, edit_tensors, small_spec
from tokenizers import Tokenizer

import funasr_cli
from funasr_cli import demo
from funasr_cli.audio.decode import load_audio
from funasr_cli.audio.vad import SAMPLE_RATE_HZ
from funasr_cli.cli import console
from funasr_cli.compute.backend import mx
from funasr_cli.decoding.sampling import make_sampler
from funasr_cli.families.batches import Frames
from funasr_cli.families.fun_asr_nano.model import NanoModel
from funasr_cli.options import TranscribeOptions
from funasr_cli.transcript import Transcript

WriteModel = Callable[..., Path]


@pytest.fixture(scope="session")
def clip(zh_wav: Path, en_flac: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve seconds: Mandarin, a second of silence, English."""
    chinese, english = (load_audio(path, SAMPLE_RATE_HZ).samples for path in (zh_wav, en_flac))
    samples = np.concatenate([chinese, np.zeros(SAMPLE_RATE_HZ, np.float32), english[: 5 * SAMPLE_RATE_HZ]])
    path = tmp_path_factory.mktemp("clip") / "clip.wav"
    soundfile.write(path, samples, SAMPLE_RATE_HZ)
    return path


@pytest.fixture(scope="module")
def write_model(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> WriteModel:
    """A function that writes a model with a fixed text: `write_model("ab", "xyz")` writes abxyzxyzxyz...

    The layers of its decoder contribute nothing, so that each token determines the next one. If the repeated part
    is None, the text ends.
    """
    tokenizer = Tokenizer.from_file(str(small_model / "tokenizer.json"))
    stop = tokenizer.token_to_id("<|im_end|>")

    def write(opening: str, again: str | None) -> Path:
        ids = [tokenizer.token_to_id(character) for character in opening + (again or "")]
        assert len({stop, *ids}) == len(ids) + 1
        following = [*ids[1:], stop if again is None else ids[len(opening)]]

        def change(tensors: dict[str, torch.Tensor]) -> None:
            embedding, head = tensors["llm.model.embed_tokens.weight"], tensors["llm.lm_head.weight"]
            for name in tensors:
                if name.startswith("llm.") and name.endswith(("o_proj.weight", "down_proj.weight")):
                    tensors[name].zero_()
            tensors["llm.model.norm.weight"].fill_(1.0)
            head.zero_()
            head[ids[0]] = embedding[tokenizer.encode("\n").ids[-1]]  # the last token of the prompt
            for one, after in zip(ids, following, strict=True):
                head[after] += embedding[one]

        folder = write_checkpoint(tmp_path_factory.mktemp("source") / "Writer-Nano", small_spec(llm_tied=False))
        edit_tensors(folder, change)
        return convert(folder, tmp_path_factory.mktemp("out") / "writer", dtype="float32").folder

    return write


@pytest.fixture(scope="module")
def ending(write_model: WriteModel) -> Path:
    return write_model("abc", None)


def transcribe(model: Path, clip: Path, **options: object) -> Transcript:
    return funasr_cli.load(str(model)).transcribe(str(clip), **options)


def ledger_of(transcript: Transcript) -> tuple[float, float, float, float]:
    ledger = transcript.ledger
    return ledger.transcribed_s, ledger.repaired_s, ledger.failed_s, ledger.silence_s


def assert_covers(parts: Transcript, whole: Transcript) -> None:
    """Assert that both transcripts' segments cover the same speech."""
    starts = {segment.start_s for segment in whole.segments}
    ends = {segment.end_s for segment in whole.segments}
    assert {part.start_s for part in parts.segments} >= starts
    assert {part.end_s for part in parts.segments} >= ends
    for part, after in zip(parts.segments, parts.segments[1:], strict=False):
        assert part.end_s == after.start_s or (part.end_s in ends and after.start_s in starts)


@pytest.mark.slow
def test_a_model_that_ends_its_texts(ending: Path, clip: Path) -> None:
    transcript = transcribe(ending, clip)
    assert len(transcript.segments) >= 3
    assert {(one.text, one.state, one.tokens) for one in transcript.segments} == {("abc", "transcribed", 4)}
    transcribed_s = ledger_of(transcript)[0]
    assert 6 < transcribed_s < 10
    assert ledger_of(transcript) == (transcribed_s, 0.0, 0.0, pytest.approx(12 - transcribed_s))
    result = invoke("transcribe", "-m", ending, clip, "--strict")
    assert (result.exit_code, result.stdout) == (0, "abc\n" * len(transcript.segments))


@pytest.mark.slow
@pytest.mark.parametrize(("opening", "again"), [("", "x"), ("abc", "xyz"), ("a", "bcdefgh")])
def test_a_model_that_loops(write_model: WriteModel, ending: Path, clip: Path, opening: str, again: str) -> None:
    model, whole = write_model(opening, again), transcribe(ending, clip)
    transcript = transcribe(model, clip)
    assert_covers(transcript, whole)
    assert {(one.text, one.stop_reason, one.state) for one in transcript.segments} == {
        (opening + again, "loop", "failed")
    }
    assert {one.tokens for one in transcript.segments} == {len(opening) + max(16, 4 * len(again))}
    assert {one.retries for one in transcript.segments} == {1, 2}  # pieces of a second are not split again
    assert min(one.duration_s for one in transcript.segments) > 0.5
    assert ledger_of(transcript) == (0, 0, *map(pytest.approx, (ledger_of(whole)[0], ledger_of(whole)[3])))
    result = invoke("transcribe", "-m", model, clip)
    assert result.exit_code == 1
    assert result.stdout == f"{opening}{again}\n" * len(transcript.segments)
    *warnings, summary = result.stderr.splitlines()
    assert len(warnings) == len(transcript.segments)
    assert summary.startswith("the input failed; 0.0% of 0:08 of speech ")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted in /proc")
def test_no_thread_is_left_behind(ending: Path, clip: Path) -> None:
    """This counts threads of the operating system: MLX keeps one for each thread that computes."""
    recognizer = funasr_cli.load(str(ending))

    def threads_after(runs: int) -> int:
        for _ in range(runs):
            recognizer.transcribe(str(clip))
        return len(list(Path("/proc/self/task").iterdir()))

    assert threads_after(1) >= threads_after(3)


@pytest.mark.parametrize("name", ["llm.model.norm.weight", "audio_encoder.after_norm.weight"])
def test_broken_weights(model: Path, clip: Path, name: str) -> None:
    weights = dict(mx.load(str(model / "model.safetensors")))
    mx.save_safetensors(str(model / "model.safetensors"), weights | {name: weights[name] * float("nan")})
    segments = transcribe(model, clip).segments
    assert segments
    assert {(one.text, one.stop_reason, one.retries, one.mean_logprob) for one in segments} == {
        ("", "nonfinite", 0, None)
    }


# --- word times; their accuracy: `accuracy/test_word_times.py` ---


@pytest.mark.slow
@pytest.mark.parametrize("word_times", [True, False])
def test_words_without_times_are_reported(word_times: bool) -> None:
    """With a meaningless CTC head, the text is still returned, with a warning about its times."""
    clip = demo.clips()[0]
    unable = funasr_cli.load("demo", engine="mlx")
    head = unable.model.network.ctc.ctc_lo
    head.weight = mx.full(head.weight.shape, float("nan"))
    said = unable.transcribe(clip.path, word_times=word_times, draft="off", second_opinion=False)
    assert (said.text, said.segments[0].words, said.times) == (clip.written, (), "segment")
    told = "0.1-2.7 s: no word times: the text could not be aligned with the audio"
    assert said.warnings == ((told,) if word_times else ())


# --- failures that must not happen: aborts, silently wrong output, one failure for all inputs ---


@pytest.mark.parametrize("dtype", ["float16", "int32", "bogus"])
def test_types_that_cannot_hold_the_model(small_model: Path, dtype: str) -> None:
    with refused("option-value", repr(dtype)):
        funasr_cli.load(str(small_model), dtype)


@pytest.mark.parametrize("temperature", [1e-38, 1e-30, 1e-6])
def test_a_tiny_temperature_is_greedy(temperature: float) -> None:
    """Dividing by it must not make several logits infinite, where the first of them would win."""
    logits = mx.array(np.random.default_rng(0).normal(0, 20, (4, 50)).astype(np.float32))
    sampled = make_sampler(TranscribeOptions(temperature=temperature))(logits, [0, 1, 1, 7])
    assert sampled.tolist() == mx.argmax(logits, axis=-1).tolist()


@pytest.mark.slow
def test_a_device_out_of_memory_gets_smaller_batches(
    stopping_model: Path, short_wav: Path, zh_wav: Path, en_flac: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The encoder fails on every batch that contains half a second. Decoding each alone shows which it is."""
    recognizer, encode = funasr_cli.load(str(stopping_model)), NanoModel.encoded
    texts = [recognizer.transcribe(clip, vad=False).text for clip in (zh_wav, en_flac)]

    def give_up(self: NanoModel, features: list[np.ndarray]) -> list[Frames]:
        if min(map(len, features)) < 15:
            raise RuntimeError("[metal::malloc] out of memory")
        return encode(self, features)

    monkeypatch.setattr(NanoModel, "encoded", give_up)
    monkeypatch.setattr("funasr_cli.scheduling.scheduler.GATHER_S", 60.0)  # makes the test independent of timing
    clips = (short_wav, zh_wav, en_flac, en_flac)
    result = invoke("transcribe", "-m", stopping_model, *clips, "--no-vad", "--batch-size", 2)
    assert result.stdout == f"{zh_wav}: {texts[0]}\n" + f"{en_flac}: {texts[1]}\n" * 2
    [(code, message)] = result.errors
    assert (result.exit_code, code, message.startswith(f"{short_wav}: ")) == (1, "computation-failed", True)
    assert result.stderr.splitlines()[-1].startswith("1 of 4 inputs failed; 100.0% of 0:28 of speech transcribed")


@pytest.mark.slow
def test_the_lack_of_a_fast_blas_is_reported_once(
    stopping_model: Path, short_wav: Path, zh_wav: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("funasr_cli.compute.backend.lacks_blas", lambda: True)
    monkeypatch.setattr("funasr_cli.compute.device.lacks_blas", lambda: True)
    monkeypatch.setattr("funasr_cli.compute.device.BLAS", None)
    for command in (
        ("transcribe", short_wav, zh_wav, "--max-tokens", 2),
        ("bench", "--rtf", short_wav, "--trials", 1),
    ):
        result = invoke(*command, "-m", stopping_model)
        assert result.stderr.count("warning: no fast BLAS found") == 1


def test_control_characters_do_not_reach_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    console.result("a\x1b[31mb\x9bc\td\n")
    assert capsys.readouterr().out == "a\x1b[31mb\x9bc\td\n"  # a pipe gets the original characters
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    console.result("a\x1b[31mb\x9bc\td\n")
    assert capsys.readouterr().out == "a[31mbc\td\n"


def test_existing_output_is_refused_before_anything_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch = Mock()
    monkeypatch.setattr("funasr_cli.conversion.convert.fetch_checkpoint", fetch)
    (tmp_path / "file").touch()
    invoke("convert", "owner/model", tmp_path).assert_error(1, "output-exists", str(tmp_path))
    invoke("convert", "owner/model", "--languages", "zh,xx").assert_error(2, "language-unknown", "'xx'")
    fetch.assert_not_called()
