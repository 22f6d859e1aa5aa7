"""Real networks that go in circles, find no end or break down, on twelve seconds with pauses."""

from __future__ import annotations

import string
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from support.checkpoints import write_checkpoint
from support.running import invoke
from support.small import convert, edit_tensors, small_spec
from tokenizers import Tokenizer

import funasr_cli
from funasr_cli.audio.decode import load_audio
from funasr_cli.audio.vad import SAMPLE_RATE_HZ
from funasr_cli.backend import mx
from funasr_cli.decoding.guard import find_loop, token_budget
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
    """A model that writes a text, whatever it hears: `write_model("ab", "xyz")` writes abxyzxyzxyz...

    No layer of its decoder adds anything, so that a token alone decides on the next one. A round that is None
    ends the text.
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
            head[ids[0]] = embedding[tokenizer.encode("\n").ids[-1]]  # what the prompt ends with
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
    """The segments of both reach over the same speech."""
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
    assert [(one.text, one.state, one.tokens) for one in transcript.segments] == [("abc", "transcribed", 4)] * len(
        transcript.segments
    )
    transcribed_s = ledger_of(transcript)[0]
    assert 6 < transcribed_s < 10
    assert ledger_of(transcript) == (transcribed_s, 0.0, 0.0, pytest.approx(12 - transcribed_s))
    result = invoke("transcribe", "-m", ending, clip, "--strict")
    assert (result.exit_code, result.stdout) == (0, "abc\n" * len(transcript.segments))


@pytest.mark.slow
@pytest.mark.parametrize(("opening", "again"), [("", "x"), ("abc", "xyz"), ("a", "bcdefgh")])
def test_a_model_that_goes_in_circles(
    write_model: WriteModel, ending: Path, clip: Path, opening: str, again: str
) -> None:
    model, whole = write_model(opening, again), transcribe(ending, clip)
    transcript = transcribe(model, clip)
    assert_covers(transcript, whole)
    assert {(one.text, one.stop_reason, one.state) for one in transcript.segments} == {
        (opening + again, "loop", "failed")
    }
    assert {one.tokens for one in transcript.segments} == {len(opening) + max(16, 4 * len(again))}
    assert {one.retries for one in transcript.segments} == {1, 2}  # pieces of a second are not cut again
    assert min(one.duration_s for one in transcript.segments) > 0.5
    assert ledger_of(transcript) == (0, 0, *map(pytest.approx, (ledger_of(whole)[0], ledger_of(whole)[3])))
    result = invoke("transcribe", "-m", model, clip)
    assert result.exit_code == 1
    assert result.stdout == f"{opening}{again}\n" * len(transcript.segments)
    *warnings, summary = result.stderr.splitlines()
    assert len(warnings) == len(transcript.segments)
    assert all("the text goes in circles: what follows the first round is missing" in line for line in warnings)
    assert summary == (
        "1 of 1 inputs failed; 0.0% of 0:08 speech transcribed, 0 segments repaired, "
        f"{len(transcript.segments)} failed, 0:08 of audio failed"
    )


ENDLESS = string.ascii_letters + string.digits + "!#$%&*+"  # a round that is too long to be noticed


@pytest.mark.slow
def test_a_model_that_finds_no_end(write_model: WriteModel, ending: Path, clip: Path) -> None:
    model, whole = write_model("", ENDLESS), transcribe(ending, clip)
    transcript = transcribe(model, clip)
    assert_covers(transcript, whole)
    assert {one.stop_reason for one in transcript.segments} == {"budget"}
    assert {one.retries for one in transcript.segments} == {1, 2}
    for one in transcript.segments:
        assert one.tokens == token_budget(one.duration_s)
        assert one.text == (ENDLESS * 4)[: one.tokens]
    assert invoke("transcribe", "-m", model, clip).exit_code == 1


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted in /proc")
def test_no_thread_is_left_behind(ending: Path, clip: Path) -> None:
    """Of the operating system: MLX keeps one for each thread of ours that computes."""
    recognizer = funasr_cli.load(str(ending))

    def threads_after(runs: int) -> int:
        for _ in range(runs):
            recognizer.transcribe(str(clip))
        return len(list(Path("/proc/self/task").iterdir()))

    assert threads_after(1) >= threads_after(3)


@pytest.mark.slow
def test_random_weights_in_batches_of_any_size(small_model: Path, ending: Path, clip: Path) -> None:
    """They go in circles of all kinds; how often a segment is tried does not depend on its neighbours."""
    whole = transcribe(ending, clip)
    one_by_one, few, many = (transcribe(small_model, clip, batch_size=size) for size in (1, 3, 16))
    described = [
        [(one.start_s, one.end_s, one.text, one.stop_reason, one.retries, one.tokens) for one in each.segments]
        for each in (one_by_one, few, many)
    ]
    assert described[0] == described[1] == described[2]
    assert_covers(many, whole)
    assert max(one.retries for one in many.segments) == 2
    assert sum(ledger_of(many)) == pytest.approx(12)
    for one in many.segments:
        assert one.stop_reason != "loop" or find_loop(one.text, 40) is None


@pytest.mark.parametrize("name", ["llm.model.norm.weight", "audio_encoder.after_norm.weight"])
def test_broken_weights(model: Path, clip: Path, name: str) -> None:
    weights = dict(mx.load(str(model / "model.safetensors")))
    mx.save_safetensors(str(model / "model.safetensors"), weights | {name: weights[name] * float("nan")})
    segments = transcribe(model, clip).segments
    assert segments
    assert {(one.text, one.stop_reason, one.retries, one.mean_logprob) for one in segments} == {
        ("", "nonfinite", 0, None)
    }
