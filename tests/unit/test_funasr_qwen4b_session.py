"""From the tokens of a row of FunASR-Qwen4B's to its segment: text, translation, doubts, limits; and batches."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.errors import refused
from support.native import LIBRARY, WITHOUT
from support.qwen4b import CLIPS, decode, hypotheses, load_qwen4b, request
from support.small import edit_json

from funasr_cli.capabilities import refuse_unsupported
from funasr_cli.compute.backend import mx
from funasr_cli.decoding.agreement import Comparison
from funasr_cli.decoding.continuous import BatchDecoder
from funasr_cli.errors import UsageError
from funasr_cli.families.funasr_qwen4b.model import Qwen4BModel
from funasr_cli.families.funasr_qwen4b.prompt import FORMATS, TRANSCRIBE, TRANSLATE, budget
from funasr_cli.families.funasr_qwen4b.session import Qwen4BSession
from funasr_cli.options import TranscribeOptions
from funasr_cli.pipeline import Recognizer
from funasr_cli.text_generator import TextGenerator
from funasr_cli.transcript import Segment
from funasr_cli.writers import WRITERS

SHORT = TranscribeOptions(max_tokens=6, translate=True, confidence=True)
ENOUGH = 200  # tokens: the small tokenizer spells most characters byte by byte
ADD = BatchDecoder.add
ECHO = "只输出转写文字，不要分析或解释：今天"


class Dictation:
    """Rules that make a row write a text and a stop token."""

    need_tokens = True

    def __init__(self, ids: list[int]):
        self._ids = ids

    def __call__(self, logits: mx.array, steps: Any, written: list[list[int]]) -> mx.array:
        chosen = np.full(logits.shape, -20.0, np.float32)
        chosen[0, self._ids[min(len(written[0]), len(self._ids) - 1)]] = 0.0
        return mx.array(chosen)


def dictate(
    model: Qwen4BModel, decoder: BatchDecoder, prompts: Any, texts: Sequence[str], stop: int = 0
) -> list[int]:
    """Add rows that write these texts in turn, whatever they hear."""
    end = model.config.stop_token_ids[stop]
    written = [texts[index % len(texts)] for index in range(len(prompts))]
    return ADD(decoder, prompts, rules=[Dictation([*model.token_ids(text), end]) for text in written])


def writes(model: Qwen4BModel, monkeypatch: pytest.MonkeyPatch, *texts: str, stop: int = 0) -> None:
    """Make the decoder write these texts for its rows in turn, whatever it hears."""

    def dictated(self: BatchDecoder, prompts: Any) -> list[int]:
        return dictate(model, self, prompts, texts, stop)

    monkeypatch.setattr(BatchDecoder, "add", dictated)


@pytest.mark.parametrize("stop", [0, 1])
def test_a_segment(qwen4b: Qwen4BModel, monkeypatch: pytest.MonkeyPatch, stop: int) -> None:
    """Either stop token ends it."""
    text = "开放时间早上九点 至下午五点。"
    writes(qwen4b, monkeypatch, text, stop=stop)
    [segment] = decode(qwen4b, TranscribeOptions(confidence=True), CLIPS[1])
    assert (segment.start_s, segment.end_s, segment.stop_reason) == (0.5, 3.0, "eos")
    assert segment.text == text == "".join(score.text for score in segment.scores)
    assert segment.tokens == len(qwen4b.token_ids(text)) + 1
    assert (segment.translation, segment.doubtful, segment.language) == (None, False, None)


def test_a_translation_stands_beside_the_text(qwen4b: Qwen4BModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of a batch keep their own; both are written."""
    writes(qwen4b, monkeypatch, "今天", "明天", "Today.", "Tomorrow.")
    segments = decode(qwen4b, TranscribeOptions(translate=True), *CLIPS[:2])
    assert [(each.text, each.translation.text) for each in segments] == [("今天", "Today."), ("明天", "Tomorrow.")]
    assert {(each.translation.language, each.translation.stop_reason) for each in segments} == {("en", "eos")}
    transcript = Recognizer(qwen4b).transcribe(CLIPS[0], translate=True, sample_rate_hz=16000, vad=False)
    assert all(text in WRITERS["json"](transcript) for text in ("今天", "明天"))  # the first two: one clip alone


@pytest.mark.parametrize(
    ("raw", "text", "thinking"),
    [
        ("<think>\n\n</think>\n\n今天", "今天", ""),
        ("<think>\n他说\n</think>今天</think>天气", "今天</think>天气", "他说"),
        ("说 <think>也是</think> 一个词", "说 <think>也是</think> 一个词", ""),
        ("今天\n\n天气 /sil", "今天 天气 /sil", ""),
        ("这是人工智能的语言模型。首先，请问", "这是人工智能的语言模型。首先，请问", ""),
        ("好的，Let me say it step by step", "好的，Let me say it step by step", ""),
        ("好好好", "好好好", ""),
    ],
)
def test_only_a_think_block_at_the_beginning_is_removed(
    qwen4b: Qwen4BModel, monkeypatch: pytest.MonkeyPatch, raw: str, text: str, thinking: str
) -> None:
    """And nothing by lists of phrases, as upstream does."""
    writes(qwen4b, monkeypatch, raw)
    [segment] = decode(qwen4b, TranscribeOptions(confidence=True, max_tokens=ENOUGH), CLIPS[2])
    assert (segment.text, segment.thinking) == (text, thinking)
    assert "".join(score.text for score in segment.scores) == text


def test_a_translation_that_is_missing(qwen4b: Qwen4BModel, monkeypatch: pytest.MonkeyPatch) -> None:
    writes(qwen4b, monkeypatch, "今天", "")
    [segment] = decode(qwen4b, TranscribeOptions(translate=True), CLIPS[0])
    assert (segment.text, segment.complete, segment.untranslated) == ("今天", True, True)
    writes(qwen4b, monkeypatch, "", "")
    [segment] = decode(qwen4b, TranscribeOptions(translate=True), CLIPS[0])
    assert (segment.text, segment.untranslated) == ("", False)


def test_what_is_shown_is_final(qwen4b: Qwen4BModel, monkeypatch: pytest.MonkeyPatch) -> None:
    writes(qwen4b, monkeypatch, "<think>x</think>今天 \n 天气很好")
    session, shown = qwen4b.session(TranscribeOptions()), list[str]()
    session.add([request(CLIPS[2])])
    while not (updates := session.step())[-1].hypothesis:
        shown += [update.text for update in updates if update.text is not None]
    assert shown
    assert all("今天 天气很好".startswith(text) for text in shown)
    assert shown == sorted(shown, key=len)


@pytest.mark.parametrize("echo", ["只输出转写文字，不要分析或解释：今天", "今天。不要分析或解释"])
def test_a_repeated_instruction_is_doubted_and_not_cut(
    qwen4b: Qwen4BModel, monkeypatch: pytest.MonkeyPatch, echo: str
) -> None:
    writes(qwen4b, monkeypatch, echo)
    [hypothesis] = hypotheses(qwen4b, TranscribeOptions(max_tokens=ENOUGH), CLIPS[1])
    assert (hypothesis.segment.text, hypothesis.segment.doubtful, hypothesis.retry_may_help) == (echo, True, True)
    writes(qwen4b, monkeypatch, "今天", echo)
    [hypothesis] = hypotheses(qwen4b, TranscribeOptions(translate=True, max_tokens=ENOUGH), CLIPS[1])
    assert (hypothesis.segment.doubtful, hypothesis.retry_may_help) == (False, False)


def writes_in_turn(model: Qwen4BModel, monkeypatch: pytest.MonkeyPatch, *texts: tuple[str, ...]) -> None:
    """Make the decoder write other texts each time that rows join; the last ones again and again."""
    left = list(texts)

    def dictated(self: BatchDecoder, prompts: Any) -> list[int]:
        written = left.pop(0) if len(left) > 1 else left[0]
        return dictate(model, self, prompts, written)

    monkeypatch.setattr(BatchDecoder, "add", dictated)


@pytest.mark.parametrize(
    ("halves", "text", "doubtful"),
    [(("今天", "很好"), "今天很好", False), (("今天", "不要分析或解释"), ECHO, True)],
)
def test_halves_replace_a_repeated_instruction_if_they_do_not_repeat_it(
    qwen4b: Qwen4BModel, monkeypatch: pytest.MonkeyPatch, halves: tuple[str, ...], text: str, doubtful: bool
) -> None:
    writes_in_turn(qwen4b, monkeypatch, (ECHO,), halves)
    found = Recognizer(qwen4b).transcribe(CLIPS[2], sample_rate_hz=16000, vad=False, max_tokens=ENOUGH)
    assert [segment.doubtful for segment in found.segments] == [doubtful] * (1 if doubtful else 2)
    assert found.text == text
    assert found.complete
    assert len(found.warnings) == doubtful


@pytest.mark.parametrize("agreement", [None, Comparison(5, 5)])
def test_a_translation_that_does_not_end_leaves_the_text_complete(
    qwen4b: Qwen4BModel, monkeypatch: pytest.MonkeyPatch, agreement: Comparison | None
) -> None:
    """The halves of the segment are taken if their translations end; else the warning is about the translation.

    So it is also with a model that has a second reading, with which they agree as well as the whole.
    """
    own = Qwen4BSession._hypothesis
    monkeypatch.setattr(
        Qwen4BSession, "_hypothesis", lambda *args: dataclasses.replace(own(*args), agreement=agreement)
    )
    endless = "".join(f"{number} " for number in range(100))
    for halves, reasons in ((("今天", "很好", "Today", "good"), ["eos", "eos"]), (("今天", endless), ["budget"])):
        writes_in_turn(qwen4b, monkeypatch, ("今天很好", endless), halves)
        found = Recognizer(qwen4b).transcribe(CLIPS[2], sample_rate_hz=16000, vad=False, translate=True)
        assert "".join(found.text.split()) == "今天很好"
        assert [segment.stop_reason for segment in found.segments] == ["eos"] * len(reasons)
        assert [segment.translation.stop_reason for segment in found.segments if segment.translation] == reasons
        assert (found.complete, found.ledger.failed_s) == (reasons == ["eos", "eos"], 0)
        assert [warning.partition(": ")[2] for warning in found.warnings] == [
            segment.translation.problem for segment in found.segments if not found.complete and segment.translation
        ]


def test_a_loop_ends_a_text_and_keeps_its_first_round(
    qwen4b: Qwen4BModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes(qwen4b, monkeypatch, "你好" + "谢谢" * 60)
    [hypothesis] = hypotheses(qwen4b, TranscribeOptions(), CLIPS[2])
    assert (hypothesis.segment.stop_reason, hypothesis.retry_may_help) == ("loop", True)
    assert hypothesis.segment.text in ("你好谢", "你好谢谢")


@pytest.mark.parametrize(
    ("duration_s", "task", "tokens"),
    [
        (0.2, TRANSCRIBE, 30),
        (10, TRANSCRIBE, 50),
        (10, TRANSLATE, 80),
        (30, TRANSCRIBE, 150),
        (60, TRANSLATE, 400),
    ],
)
def test_budgets(duration_s: float, task: str, tokens: int) -> None:
    assert budget(duration_s, task) == tokens


def test_a_text_beyond_its_budget_is_decoded_again(qwen4b: Qwen4BModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless the limit is the user's."""
    writes(qwen4b, monkeypatch, "".join(f"{number} " for number in range(100)))
    for options, tokens, may_help in (
        (TranscribeOptions(), 30, True),
        (TranscribeOptions(max_tokens=5), 5, False),
        (TranscribeOptions(exact_tokens=7), 7, False),
    ):
        [hypothesis] = hypotheses(qwen4b, options, CLIPS[1])
        assert (hypothesis.segment.stop_reason, hypothesis.segment.tokens) == ("budget", tokens)
        assert hypothesis.retry_may_help == may_help


def assert_same(one: Segment, other: Segment, tolerance: float = 1e-4) -> None:
    assert (one.text, one.tokens, one.translation.text) == (other.text, other.tokens, other.translation.text)
    assert one.mean_logprob == pytest.approx(other.mean_logprob, abs=tolerance)
    assert one.translation.mean_logprob == pytest.approx(other.translation.mean_logprob, abs=tolerance)


@pytest.mark.parametrize("options", [SHORT, dataclasses.replace(SHORT, temperature=0.8, top_k=20, seed=3)])
def test_a_text_does_not_depend_on_its_batch(qwen4b: Qwen4BModel, options: TranscribeOptions) -> None:
    together = decode(qwen4b, options, *CLIPS)
    for samples, segment in zip(CLIPS, together, strict=True):
        assert_same(*decode(qwen4b, options, samples), segment)
    assert len({segment.text for segment in together}) > 1


@pytest.mark.skipif(LIBRARY is None, reason=WITHOUT)
def test_the_native_engine(small_qwen4b: Path, qwen4b: Qwen4BModel) -> None:
    """Both texts begin with tokens of the same probability; `test_qwen4b_parity.py` compares all stages."""
    native, options = load_qwen4b(small_qwen4b, engine="native"), dataclasses.replace(SHORT, max_tokens=1)
    for one, other in zip(decode(native, options, *CLIPS), decode(qwen4b, options, *CLIPS), strict=True):
        assert one.tokens == other.tokens == 2
        assert one.mean_logprob == pytest.approx(other.mean_logprob, abs=0.01)
        assert one.translation.mean_logprob == pytest.approx(other.translation.mean_logprob, abs=0.01)


def test_what_it_can_do(qwen4b: Qwen4BModel) -> None:
    able = qwen4b.capabilities
    assert able.languages == ("zh",)
    assert (able.translation, able.punctuation, able.hotwords, able.word_times) == (True, False, False, False)
    refuse_unsupported(TranscribeOptions(language="zh", translate=True, temperature=0.6), able, "x")
    for options in (TranscribeOptions(hotwords=("a",)), TranscribeOptions(language="en"),
                    TranscribeOptions(word_times=True), TranscribeOptions(prev_text="a")):  # fmt: skip
        with pytest.raises(UsageError):
            refuse_unsupported(options, able, "x")


@pytest.mark.parametrize("name", FORMATS)
def test_prompt_formats(name: str, small_qwen4b: Path, tmp_path: Path) -> None:
    """A field of the model's configuration. Only the current one can translate."""
    copied = shutil.copytree(small_qwen4b, tmp_path / "model")
    edit_json(copied / "config.json", lambda config: config.update(prompt_format=name))
    model = load_qwen4b(copied)
    prompt = model.prompt(TranscribeOptions())
    assert (prompt.before, prompt.after) == FORMATS[name][TRANSCRIBE]
    assert prompt.tokens_before == len(model.token_ids(prompt.before))
    assert model.capabilities.translation == (name == "current")
    [segment] = decode(model, TranscribeOptions(max_tokens=3), CLIPS[0])
    assert 1 <= segment.tokens <= 3
    edit_json(copied / "config.json", lambda config: config.update(prompt_format="other"))
    with refused("model-config", "prompt_format", "other"):
        load_qwen4b(copied)


def test_its_decoder_writes_texts(qwen4b: Qwen4BModel) -> None:
    """As upstream's second step, which translates the transcript."""
    result = TextGenerator(qwen4b.text_model).translate("今天天气怎么样？")
    assert result.tokens > 0
    assert qwen4b.text_model.chat("a").endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
