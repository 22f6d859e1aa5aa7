"""CT-Transformer compared with FunASR's own code: logits, the label after each token, and the text."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.parity.live import run_reference
from support.punctuation import CHARACTERS, CHINESE_WORDS, WORDS, PunctuationSpec, write_punctuation
from support.small import convert, once

from funasr_cli.compute.backend import nn
from funasr_cli.families.ct_punc.model import CTPunctuation
from funasr_cli.families.ct_punc.text import Pieces, Token
from funasr_cli.families.load import load_punctuation

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]
SCRIPT = REPOSITORY / "tests/support/parity/record_punctuation.py"
SPECS = {
    "tiny": PunctuationSpec(),
    # As in the large release, a head has 43 values, and there are 12 blocks.
    "large": PunctuationSpec(width=172, heads=4, ffn_dim=64, blocks=12, seed=3),
    "words": PunctuationSpec(seed=5, words=True),
}
LENGTHS = (1, 2, 3, 19, 20, 21, 22, 39, 40, 41, 60, 61, 100, 240, 400, 1000)
SMALLEST_MARGIN = 2e-5  # with less, rounding might change a label
UPSTREAM_MARKS = {2: "，", 3: "。", 4: "？", 5: "、"}


def mixed_text(length: int, seed: int) -> str:
    """Return a text of this length or a little more: Chinese, English, digits, unknown characters, spaces."""
    draw, parts = random.Random(seed), list[str]()
    while sum(map(len, parts)) < length:
        kind = draw.random()
        if kind < 0.7:
            parts.append(draw.choice(CHARACTERS))
        elif kind < 0.75:
            parts.append(draw.choice("龘ü한 "))
        else:
            parts.append(f" {draw.choice([*WORDS, 'iPhone', 'x'])} "[draw.randrange(2) :])
    return "".join(parts)


TEXTS = (
    "我想问我在滨海新区有房",
    "今天天气怎么样hello world this is a test 你好世界",
    "ok hello this is a test",
    "  今天\t天气\n好  ",
    "你好。世界，",
    "hello, world. ok",
    "我",
    "ok",
    "".join(random.Random(7).choices(CHARACTERS, k=300)),
    *(mixed_text(length, length) for length in LENGTHS),
)
LONGEST = mixed_text(5000, 5000)
OF_WORDS = ("我们今天天气怎么样hello 世界不是我们", "".join(CHINESE_WORDS) * 30)
TEXTS_OF = {"tiny": (*TEXTS, LONGEST), "large": TEXTS[:-2], "words": OF_WORDS}
ROWS = [list(CHARACTERS), ["hello", "我", "unknown", "龘"], ["test"] * 60]


@dataclass(frozen=True)
class Reference:
    """What FunASR answers, and the same checkpoint converted in float32."""

    model: CTPunctuation
    texts: tuple[str, ...]
    answers: list[dict[str, Any]]
    logits: list[np.ndarray]


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reference]:
    def make(folder: Path) -> None:
        checkpoints = {name: write_punctuation(folder / name, spec) for name, spec in SPECS.items()}
        jobs = [
            {"checkpoint": str(path), "texts": TEXTS_OF[name], "rows": ROWS} for name, path in checkpoints.items()
        ]
        (folder / "job.json").write_text(json.dumps(jobs, ensure_ascii=False), encoding="utf-8")
        run_reference(SCRIPT, folder / "job.json", folder / "answers")
        for name, path in checkpoints.items():
            convert(path, folder / f"{name}-mlx", dtype="float32")

    folder = once(tmp_path_factory, "punctuation", make)
    answers = json.loads((folder / "answers.json").read_text(encoding="utf-8"))
    found = {}
    with np.load(folder / "answers.npz") as stored:
        for number, name in enumerate(SPECS):
            model = load_punctuation(folder / f"{name}-mlx")
            assert isinstance(model, CTPunctuation)
            logits = [stored[f"{number}/{row}"] for row in range(len(ROWS))]
            found[name] = Reference(model, TEXTS_OF[name], answers[number], logits)
    return found


@pytest.fixture(params=["tiny", "large"])
def reference(request: pytest.FixtureRequest, references: dict[str, Reference]) -> Reference:
    return references[request.param]


def test_logits(reference: Reference) -> None:
    """Alone and in a batch: padding changes nothing."""
    rows = [reference.model.ids([Token(token, 0) for token in row]) for row in ROWS]
    together = reference.model.logits(rows)
    for row, wanted, in_batch in zip(rows, reference.logits, together, strict=True):
        [alone] = reference.model.logits([row])
        assert alone.shape == wanted.shape
        np.testing.assert_allclose(alone, wanted, rtol=0, atol=2e-5)
        np.testing.assert_allclose(in_batch, alone, rtol=0, atol=1e-5)


def test_constants(reference: Reference) -> None:
    norms = [module for module in reference.model.network.modules() if isinstance(module, nn.LayerNorm)]
    assert len(norms) > 4
    assert sorted({norm.eps for norm in norms}) == reference.answers[0]["eps"]


def test_labels(reference: Reference) -> None:
    """All marks occur, and pieces are carried over: most texts are longer than one."""
    assert min(answer["margin"] for answer in reference.answers) > SMALLEST_MARGIN
    for text, answer in zip(reference.texts, reference.answers, strict=True):
        assert [token.text for token in reference.model.tokens(text)] == answer["tokens"], text[:50]
        assert reference.model.labels(text) == answer["ids"], text[:50]
    assert {label for answer in reference.answers for label in answer["ids"]} == {1, 2, 3, 4, 5}


def test_text(reference: Reference) -> None:
    """The same marks in the same places, where upstream changes neither capitals nor spaces: in Chinese."""
    for text, answer in zip(reference.texts, reference.answers, strict=True):
        if all(char in CHARACTERS for char in text):
            assert reference.model.punctuate([text]) == [answer["text"]]


def test_texts_together(reference: Reference) -> None:
    """A batch of texts is as the same texts alone."""
    model, texts = reference.model, reference.texts[:20]
    assert model.punctuate(texts) == [text for each in texts for text in model.punctuate([each])]


def test_words(references: dict[str, Reference]) -> None:
    """With a word list, FunASR's tokens are words. The labels after its own words are the same as FunASR's."""
    model, answers = references["words"].model, references["words"].answers
    assert [token.text for token in model.tokens(OF_WORDS[0])] == [
        "我们", "今天", "天气", "怎么样", "hello", "世界", "不是", "我们",
    ]  # fmt: skip
    for answer in answers:
        assert answer["margin"] > SMALLEST_MARGIN
        tokens = [Token(token, 0) for token in answer["tokens"]]
        assert any(len(token.text) > 1 and not token.text.isascii() for token in tokens)
        pieces = Pieces(model.label_names)
        pieces.add(model.ids(tokens))
        model.decide([pieces], ended=True)
        # FunASR repeats a label for each character of a word: ones, then the word's own.
        spread = [
            label
            for token, own in zip(tokens, pieces.final, strict=True)
            for label in ([1] * (len(token.text) - 1) if not token.text.isascii() else []) + [own]
        ]
        assert spread[:-1] == answer["ids"][:-1]  # the last one ends the text
