"""The page's files and the parts of it that need no browser: Node runs its modules."""

from __future__ import annotations

import bisect
import json
import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from hatchling.builders.wheel import WheelBuilder
from support.serving import serving
from support.speaking import SAID, SpeakingModel

from funasr_cli import demo
from funasr_cli.pipeline import Recognizer
from funasr_cli.server.app import PAGE
from funasr_cli.subtitles import pieces_of
from funasr_cli.transcript import Score, Segment, TimedText, Transcript, Word
from funasr_cli.writers import WRITERS

ROOT = Path(__file__).parents[2]
FILES = sorted(path.name for path in PAGE.iterdir())
SEED, CASES = 1, 300
LETTERS = ["one", "two", "two", "three.", "Four", "<b>", "你", "好。"]


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not shutil.which("node"):
        pytest.skip("Node is not installed")
    folder = tmp_path_factory.mktemp("page")
    shutil.copytree(PAGE, folder, dirs_exist_ok=True)
    (folder / "package.json").write_text('{"type": "module"}')
    return folder


def run(modules: Path, name: str, code: str, given: Any = None) -> Any:
    """Return the value of an expression with a module's names `m`, and some data `given`."""
    script = (
        f'import * as m from "{(modules / name).as_uri()}"; import {{readFileSync}} from "fs";'
        f"const given = JSON.parse(readFileSync(0)); console.log(JSON.stringify({code}));"
    )
    command = ["node", "--input-type=module", "-e", script]
    done = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True, check=True, timeout=60)
    return json.loads(done.stdout)


@pytest.mark.process
def test_clock(modules: Path) -> None:
    times = [0, 0.99, 59.999, 60, 754.2, 3599.9, 3600, 36061]
    assert run(modules, "clock.js", "given.map(m.clock)", times) == [
        "0:00", "0:00", "0:59", "1:00", "12:34", "59:59", "1:00:00", "10:01:01",
    ]  # fmt: skip
    assert run(modules, "clock.js", "given.map(m.length)", [0.04, 2.05, 9.95, 59.9, 61, 3725]) == [
        "0 s", "2 s", "10 s", "1:00 min", "1:01 min", "1:02:05 h",
    ]  # fmt: skip
    assert run(modules, "clock.js", "given.map(m.length)", [10.84, 59.4, 3599.6]) == ["11 s", "59 s", "1:00:00 h"]


@pytest.mark.process
def test_events_are_read_wherever_they_are_cut(modules: Path) -> None:
    events = [{"type": "a", "text": "data: \\n\\n é"}, {"n": 2}]
    lines = ": \n\n" + "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    code = """Array.from({length: given.length}, (_, cut) => {
      const events = new m.Events(); return [...events.read(given.slice(0, cut)), ...events.read(given)] })"""
    assert run(modules, "events.js", code, lines) == [events] * len(lines)


@pytest.mark.process
def test_the_current_word_is_found_by_bisection(modules: Path) -> None:
    starts = sorted(random.Random(SEED).choices(range(50), k=40))
    times = [-1, *range(51)]
    expected = [bisect.bisect_right(starts, time) - 1 for time in times]
    code = "[given[1].map(t => m.indexAt(given[0], t)), m.indexAt([], 1)]"
    assert run(modules, "words.js", code, [starts, times]) == [expected, -1]


def longest_common(before: list[str], after: list[str]) -> int:
    lengths = [[0] * (len(after) + 1) for _ in range(len(before) + 1)]
    for i, one in enumerate(before):
        for j, other in enumerate(after):
            same = lengths[i][j] + 1
            lengths[i + 1][j + 1] = same if one == other else max(lengths[i][j + 1], lengths[i + 1][j])
    return lengths[-1][-1]


def spoken(texts: list[str]) -> Segment:
    """Return a segment with words of different lengths, with pauses between some of them."""
    words, time_s = [], 1.0
    for number, text in enumerate(texts):
        time_s += 0.5 * (number % 3 == 0)
        words.append(Word(text, time_s, time_s + 0.1 * len(text), 0.9))
        time_s = words[-1].end_s
    return replace(SAID, start_s=1.0, end_s=time_s + 1, text=" ".join(texts), words=tuple(words),
                   scores=(Score(" ".join(texts), 0.9),))  # fmt: skip


@pytest.mark.process
def test_corrections_keep_the_times_of_words_that_stay(modules: Path) -> None:
    """With brute force for the words that stay; whatever comes out is a valid transcript in order."""
    draw = random.Random(SEED)
    cases = []
    for _ in range(CASES):
        before, after = (draw.choices(LETTERS, k=draw.randrange(9)) for _ in range(2))
        cases.append([msgspec.to_builtins(spoken(before)), " ".join(after)])
    made = run(
        modules, "corrections.js", "given.map(([segment, text]) => m.correctedSegment(segment, text))", cases
    )
    for (given, text), found in zip(cases, made, strict=True):
        segment = msgspec.convert(found, Segment)
        old = msgspec.convert(given, Segment)
        if text == old.text:
            assert segment == old
            continue
        assert (segment.text, segment.scores) == (text, ())
        if not old.words:
            assert not segment.words
            continue
        assert [word.text for word in segment.words] == text.split()
        assert "".join(piece.text for piece in pieces_of(segment)) == text
        times = [
            segment.start_s,
            *(t for word in segment.words for t in (word.start_s, word.end_s)),
            segment.end_s,
        ]
        assert times == sorted(times)
        stay = [word for word in segment.words if not word.estimated]
        assert set(stay) <= set(old.words)
        assert len(stay) == longest_common([word.text for word in old.words], text.split())


@pytest.mark.process
def test_a_correction_of_one_word_moves_no_other(modules: Path) -> None:
    segment = spoken(["When", "dose", "it", "close?"])
    code = "m.correctedSegment(given, 'When does it close?').words"
    words = msgspec.convert(run(modules, "corrections.js", code, msgspec.to_builtins(segment)), list[Word])
    assert [words[0], *words[2:]] == [segment.words[0], *segment.words[2:]]
    changed = replace(segment.words[1], text="does", score=None, estimated=True)
    assert (words[1].text, words[1].estimated) == (changed.text, True)
    assert (words[1].start_s, words[1].end_s) == pytest.approx((changed.start_s, changed.end_s))


@pytest.mark.process
def test_corrected_words_have_the_speaker_of_their_segment(modules: Path) -> None:
    segment = spoken(["When", "dose", "it", "close?"]).spoken_by("Ann")
    code = "m.correctedSegment(given, 'Well, when does it close?').words"
    words = msgspec.convert(run(modules, "corrections.js", code, msgspec.to_builtins(segment)), list[Word])
    assert [word.speaker for word in words] == ["Ann"] * 5


@pytest.mark.process
def test_words_of_scripts_without_spaces(modules: Path) -> None:
    texts = ["打开“车库”的音乐。", "Tokyo タワー is 333m!", "  a - b\n", "", "<img src=x>"]
    assert run(modules, "corrections.js", "given.map(m.wordsIn)", texts) == [
        ["打", "开", "“车", "库”", "的", "音", "乐。"], ["Tokyo", "タ", "ワー", "is", "333m!"],
        ["a", "-", "b"], [], ["<img", "src=x>"],
    ]  # fmt: skip


@pytest.mark.process
def test_units_have_the_whole_text_and_the_least_probability(modules: Path) -> None:
    """Words without a score have that of their tokens, as parts that are no words have."""
    said = spoken(["So", "hospital."])
    words = replace(said, words=tuple(replace(word, score=None) for word in said.words))
    scores = [("So", 0.9), (" hos", 0.7), ("pit", 0.4), ("al", 0.9), (".", 0.95)]
    timed = replace(words, scores=tuple(Score(*each) for each in scores))
    segments = [
        timed,
        replace(timed, scores=(Score(" So", 0.3), *timed.scores[1:])),  # a space that the text does not have
        replace(timed, words=(), pieces=(TimedText("So", 1.0, 1.5), TimedText("hospital.", 2.0, 3.0))),
        replace(timed, words=(), scores=()), replace(timed, text="So! hospital. Well", words=(), scores=()),
        replace(timed, text="Oh, So hospital. Well", scores=()),
    ]  # fmt: skip
    found = run(modules, "words.js", "given.map(m.unitsOf)", msgspec.to_builtins(segments))
    joined = ["".join(unit["before"] + unit["text"] for unit in units) for units in found]
    assert joined == [segment.text for segment in segments]
    likely = [[unit["probability"] for unit in units] for units in found]
    assert likely == [[0.9, 0.4], [0.3, 0.4], [0.9, 0.4], [1], [1], [1, 1]]
    assert [unit["isWord"] for unit in (found[0][0], found[2][0], found[3][0])] == [True, False, False]
    code = "[m.DOUBTFUL - 0.01, m.DOUBTFUL, m.UNSURE - 0.01, m.UNSURE].map(m.tint)"
    assert run(modules, "words.js", code) == ["doubtful", "unsure", "unsure", ""]


@pytest.mark.process
def test_a_right_text_of_whisper_has_few_tinted_words(modules: Path) -> None:
    """Tokens and words of Whisper base for the clip en-11s-jfk: a comma makes no doubt."""
    words = [("And", 0.64), ("so", 0.99), ("my", 0.68), ("fellow", 1.0), ("Americans,", 0.95), ("ask", 0.74),
             ("not", 0.88), ("what", 0.8), ("you,", 0.98), ("ask", 0.9)]  # fmt: skip
    tokens = [("And", 0.64), (" so", 0.99), (" my", 0.68), (" fellow", 1.0), (" Americans", 0.95), (",", 0.43),
              (" ask", 0.74), (" not", 0.88), (" what", 0.8), (" you", 0.98), (",", 0.59),
              (" ask", 0.9)]  # fmt: skip
    said = spoken([text for text, _ in words])
    timed = tuple(replace(word, score=score) for word, (_, score) in zip(said.words, words, strict=True))
    segment = replace(said, words=timed, scores=tuple(Score(*token) for token in tokens))
    unscored = replace(segment, words=tuple(replace(word, score=None) for word in timed))
    unlikely = replace(unscored, scores=(*segment.scores[:-1], Score(" ask", 0.1)))
    doubtful = replace(segment, words=(*timed[:-1], replace(timed[-1], score=0.1)))
    corrected = replace(doubtful, scores=())  # a reader has seen it
    code = "given.map((segment) => m.unitsOf(segment).map((unit) => m.tint(unit.probability)))"
    found = run(modules, "words.js", code, msgspec.to_builtins([segment, unscored, unlikely, doubtful, corrected]))
    plain = [""] * len(words)
    assert found == [plain, plain, [*plain[:-1], "doubtful"], [*plain[:-1], "doubtful"], plain]


@pytest.mark.process
def test_holes(modules: Path) -> None:
    """All of the ledger's failed seconds are shown: cut texts, damage, and what could not be read."""
    failed = replace(SAID, start_s=4.0, end_s=6.0, text="", stop_reason="loop")
    doubtful = replace(SAID, start_s=0.0, end_s=3.0, doubtful=True)
    timings = Recognizer(SpeakingModel()).transcribe(demo.clips()[0].path).timings
    transcript = Transcript(
        "a",
        12.0,
        "m",
        None,
        (doubtful, failed),
        timings,
        2.0,
        "cut off",
        lost=((7.0, 8.0),),
        warnings=("quiet", "4.0-6.0 s: it repeats itself", "7.00-8.00 s: damaged", "0.0-3.0 s: doubtful"),
    )
    given = json.loads(WRITERS["json"](transcript))
    code = "[m.holesOf(given), m.accountOf(given), m.coverage(given), m.notesOf(given)]"
    holes, account, parts, notes = run(modules, "holes.js", code, given)
    assert [(hole["start_s"], hole["end_s"]) for hole in holes] == [(4.0, 6.0), (7.0, 8.0), (10.0, 12.0)]
    assert [hole["why"] for hole in holes] == ["it repeats itself", "damaged", "cut off"]
    assert [note["why"] for note in notes] == ["quiet", "doubtful", "it repeats itself", "damaged", "cut off"]
    bare = given | {"warnings": [], "fault": None, "unread_s": 0}
    assert len(run(modules, "holes.js", "m.notesOf(given)", bare)) == 2  # nothing depends on a warning
    assert sum(hole["end_s"] - hole["start_s"] for hole in holes) == transcript.ledger.failed_s
    assert all(seconds in account for seconds in ("5 s of 8 s", "3 s are doubtful"))
    assert [kind for _, _, kind in parts] == ["doubtful", "hole", "hole", "hole"]
    whole = given | {"ledger": {**given["ledger"], "failed_s": 0, "doubtful_s": 0}}
    assert "All 3 s" in run(modules, "holes.js", "m.accountOf(given)", whole)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serving({"speaking": demo.MODEL}, load=lambda folder: Recognizer(SpeakingModel())) as served:
        yield served.address


@pytest.mark.parametrize("name", ["", *FILES])
def test_the_server_has_the_page(address: str, name: str) -> None:
    answer = httpx.get(f"{address}/{name}")
    assert answer.status_code == 200
    kinds = {"js": "javascript", "css": "text/css", "svg": "image/svg+xml", "html": "text/html", "": "text/html"}
    assert kinds[name.rpartition(".")[2]] in answer.headers["content-type"]
    policy = dict(rule.split(" ", 1) for rule in answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'self'"
    assert not {"unsafe-inline", "unsafe-eval", "*", "data:"} & set(" ".join(policy.values()).split(" "))


def test_the_page_names_no_other_address_and_makes_no_html() -> None:
    text = "".join((PAGE / name).read_text(encoding="utf-8") for name in FILES)
    assert set(re.findall(r"https?://[^\s\"'`)]+", text)) == {"http://www.w3.org/2000/svg"}  # a namespace
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\bon\w+=[\"']", text)


def test_all_of_it_is_in_the_wheel() -> None:
    builder = WheelBuilder(str(ROOT))
    packed = {Path(file.distribution_path) for file in builder.recurse_included_files()}
    assert {Path("funasr_cli/server/page") / name for name in FILES} <= packed
