"""What users do with the page, in a headless Chromium."""

from __future__ import annotations

import itertools
import json
import shutil
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import soundfile
from support.browser import Browser, browsing, paths
from support.serving import Served, serving
from support.speaking import SAID, SpeakingModel, SpeakingSession
from support.voices import LOUD, QUIET, RATE_HZ, WORDS, Levels, recognizer, spoken

from funasr_cli import demo
from funasr_cli.audio.decode import load_audio
from funasr_cli.capabilities import Capabilities
from funasr_cli.languages import LANGUAGES
from funasr_cli.options import TranscribeOptions
from funasr_cli.pipeline import Recognizer
from funasr_cli.server.guard import Guard
from funasr_cli.speech_model import SegmentRequest, Update
from funasr_cli.transcript import Score, Transcript, Translation
from funasr_cli.writers import WRITERS

pytestmark = [pytest.mark.slow, pytest.mark.process]

CLIPS = [
    clip.path for clip in demo.clips() if clip.path.stem in ("0001-en-times", "0009-en-everyday", "0012-en-hours")
]
TEXTS = [
    "The meeting starts at 3:00 sharp.",
    "Sarah and Emma are at the hospital.",
    "When does the museum close tomorrow?",
]
HOSTILE = "<img src=x onerror=hacked=1>&amp;"
PAUSE_S = 1.5
WIDTHS = (390, 1280)
READABLE = 4.5  # contrast of text, by the accessibility guidelines (WCAG 2, level AA)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips, with pauses between them."""
    path = tmp_path_factory.mktemp("recordings") / "Monday.flac"
    pause = np.zeros(int(PAUSE_S * 16000), np.float32)
    parts = [part for clip in CLIPS for part in (load_audio(clip, 16000).samples, pause)]
    soundfile.write(path, np.concatenate(parts), 16000)
    return path


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    paths()  # skips before a model is loaded
    with serving({"demo": demo.MODEL}) as served:
        yield served


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    folder = tmp_path_factory.mktemp("browser")
    spoken = folder / "microphone.wav"
    soundfile.write(spoken, load_audio(CLIPS[1], 16000).samples, 16000)
    with browsing(
        folder, "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={spoken}%noloop",
    ) as browser:  # fmt: skip
        yield browser


@pytest.fixture
def browser(started: Browser) -> Iterator[Browser]:
    """A browser without what other tests have kept; afterwards, the console must have no complaints."""
    started.resize(1280, 900)
    yield started
    expected = ("401 (Unauthorized)", "400 (Bad Request)", "favicon.ico", "'beforeunload' confirmation")
    assert [error for error in started.errors() if not any(each in error for each in expected)] == []
    started.js("localStorage.clear(); sessionStorage.clear()")
    started.driver.get("about:blank")
    for made in started.downloads.iterdir():
        made.unlink()


@pytest.fixture
def page(browser: Browser, served: Served) -> Browser:
    """The page, without recordings."""
    forget_all(browser, served.address)
    browser.open(served.address)
    return browser


def forget_all(browser: Browser, address: str) -> None:
    browser.driver.get(f"{address}/icon.svg")  # a page of the same origin that does not hold the database open
    browser.driver.execute_async_script("indexedDB.deleteDatabase('funasr').onsuccess = arguments[0]")


def keep(browser: Browser, entry: dict[str, Any]) -> None:
    """Put an entry into the browser's storage, and open the page again."""
    browser.driver.execute_async_script(
        "import('./store.js').then(store => store.keep(JSON.parse(arguments[0]))).then(arguments[1])",
        json.dumps(entry),
    )
    browser.driver.refresh()
    browser.until(lambda: browser.js("return document.body.dataset.ready"))


def paragraphs(browser: Browser) -> list[str]:
    return browser.js("return [...document.querySelectorAll('.said')].map(each => each.textContent)")


def play_from(browser: Browser, word: str, count: int = 1) -> None:
    """Click a word, and wait until this number of words has been marked: first this one, then later ones."""
    browser.js("""
        window.marked = [];
        const note = ({target}) => target.matches(".spoken") && marked.push(target.textContent);
        const watched = {subtree: true, attributes: true, attributeFilter: ["class"]};
        new MutationObserver((changes) => changes.forEach(note)).observe(document.getElementById("text"), watched);
    """)
    next(unit for unit in browser.all(".unit") if unit.text == word).click()
    browser.until(lambda: browser.js("return marked.length") >= count)
    marked, words = browser.js("return [marked, [...document.querySelectorAll('.unit')].map(e => e.textContent)]")
    assert marked[0] == word
    left = iter(words[words.index(word) :])
    assert all(one in left for one in marked)  # in the order of the text; a busy machine may skip some


def time_s(browser: Browser) -> float:
    return browser.js("return document.getElementById('audio').currentTime")


def edit(browser: Browser, paragraph: int, text: str) -> None:
    """Begin to correct a paragraph, and replace its text."""
    browser.js("document.querySelectorAll('.edit')[arguments[0]].click()", paragraph)
    browser.one("textarea").send_keys("\ue009a", "\ue000", text)  # Control and A


def transcript_in(browser: Browser, name: str) -> Transcript:
    """Return the transcript that is saved as JSON."""
    browser.click("[data-format=json]")
    return msgspec.json.decode(browser.downloaded(name), type=Transcript)


def test_from_a_recording_to_corrected_subtitles(page: Browser, recording: Path, served: Served) -> None:
    """Choose a file, click a word, correct, save in each format; everything is there after a reload."""
    page.choose(recording)
    page.transcribed()
    assert paragraphs(page) == TEXTS
    assert page.text("#title") == "Monday.flac"
    assert "All" in page.text("#account")

    play_from(page, "Emma", 3)
    page.js("document.getElementById('audio').currentTime = 0")
    page.js("document.getElementById('audio').play()")
    page.js("document.dispatchEvent(new WheelEvent('wheel'))")  # a reader who scrolls is left alone
    page.click("#follow")
    page.until(lambda: not page.all("#follow")[0].is_displayed())

    edit(page, 1, "Sara  and Emma are\n")
    page.until(lambda: paragraphs(page)[1] == "Sara and Emma are")
    edit(page, 1, "Sara and Emma are at <b>home</b>.")
    page.click("#title")  # a click elsewhere keeps it
    page.until(lambda: paragraphs(page)[1] == "Sara and Emma are at <b>home</b>.")
    assert "1 paragraph corrected" in page.text("#facts")

    saved = transcript_in(page, "Monday.json")
    own = msgspec.json.decode(served.transcribe(recording, response_format="full_json").content, type=Transcript)
    assert (saved.source, saved.text) == ("Monday.flac", " ".join((TEXTS[0], paragraphs(page)[1], TEXTS[2])))
    assert (saved.segments[0], saved.segments[2]) == (own.segments[0], own.segments[2])
    assert saved.segments[1].words[1:5] == own.segments[1].words[1:5]  # these were not corrected
    for format in ("txt", "srt", "vtt"):
        page.click(f"[data-format={format}]")
        assert page.downloaded(f"Monday.{format}") == WRITERS[format](saved)
    assert "&lt;b&gt;home&lt;/b&gt;." in page.downloaded("Monday.vtt")

    page.driver.refresh()
    page.until(lambda: page.js("return document.body.dataset.ready"))
    page.click(".entry .open")
    assert paragraphs(page) == [TEXTS[0], "Sara and Emma are at <b>home</b>.", TEXTS[2]]
    play_from(page, "museum")  # the recording has been kept, too
    edit(page, 1, "never mind")
    page.press("\ue00c")  # Escape
    assert paragraphs(page)[1] == "Sara and Emma are at <b>home</b>."
    edit(page, 1, "never mind")
    page.click(".undo")
    page.until(lambda: paragraphs(page) == TEXTS)
    assert not page.all(".unit:is(.doubtful, .unsure)")  # a right text


def test_several_dropped_recordings_and_one_that_is_none(page: Browser, tmp_path: Path) -> None:
    """What is none is listed as failed, and a good one is shown; there is no player for what is not audio."""
    (tmp_path / "notes.txt").write_text("nothing to hear")
    files = [tmp_path / "notes.txt", *CLIPS[:2]]
    page.js("""document.body.insertAdjacentHTML("beforeend", '<input type="file" id="dragged" multiple>')""")
    page.one("#dragged").send_keys("\n".join(map(str, files)))
    page.js("""
        const {send} = XMLHttpRequest.prototype;  // what is none fails only after it has been opened
        XMLHttpRequest.prototype.send = function (...all) { setTimeout(() => send.apply(this, all), 500); };
    """)
    page.js("""
        const dataTransfer = new DataTransfer();
        for (const file of document.getElementById("dragged").files) dataTransfer.items.add(file);
        document.body.dispatchEvent(new DragEvent("drop", {dataTransfer, bubbles: true, cancelable: true}));
    """)
    page.transcribed(2)
    page.until(lambda: page.all('.entry[data-state="failed"]'))
    assert "notes.txt" in page.text('.entry[data-state="failed"]')
    page.until(lambda: paragraphs(page) == TEXTS[:1])
    assert page.text("#title") == CLIPS[0].name
    page.one("#player")
    page.one(".again-button").click()
    page.until(lambda: page.all('.entry[data-state="failed"]'))
    page.click('.entry[data-state="failed"] .open')
    page.click("#retry")
    page.until(lambda: page.all('.entry[data-state="failed"]'))
    page.until(lambda: page.text("#progress").strip().startswith("notes.txt"))
    assert "upload" not in page.text("#progress")
    page.until(lambda: not page.all("#player")[0].is_displayed())
    for entry, text in zip(reversed(page.all('.entry[data-state="done"]')), TEXTS, strict=False):
        entry.find_element("css selector", ".open").click()
        page.until(lambda text=text: paragraphs(page) == [text])  # type: ignore[misc]
    for left in (2, 1, 0):
        page.click(".remove")
        page.until(lambda left=left: len(page.all(".entry")) == left)  # type: ignore[misc]
    page.one("#welcome")


def test_a_recording_from_the_microphone(page: Browser) -> None:
    page.click("#record")
    page.one("#recording")
    page.until(lambda: page.js("return Number(document.getElementById('level').value)") > 0.05)
    page.until(lambda: page.js("return document.getElementById('recorded').value") >= "0:03")
    page.click("#stop")
    page.transcribed()
    assert "hospital" in page.text(".said")
    assert page.text("#title").startswith("Recording ")
    page.one("#record")
    play_from(page, "hospital.")
    page.click("#record")
    page.one("#recording")
    page.click("#discard")
    page.one("#record")
    assert len(page.all(".entry")) == 1


@dataclass
class Paced(SpeakingModel):
    """A model that finishes a segment each time it is allowed to."""

    allowed: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def session(self, options: TranscribeOptions) -> PacedSession:
        return PacedSession(self)


class PacedSession(SpeakingSession):
    def __init__(self, model: Paced):
        super().__init__(model.result)
        self._model, self._waiting = model, list[int]()

    def add(self, requests: Sequence[SegmentRequest]) -> list[int]:
        numbers = super().add(requests)
        self._waiting += numbers
        return numbers

    def step(self) -> list[Update]:
        if not (self._waiting and self._model.allowed.acquire(timeout=0.02)):
            return []
        held, self._rows = self._rows, {(first := self._waiting.pop(0)): self._rows[first]}
        made = super().step()
        self._rows = {number: held[number] for number in self._waiting}
        return made

    def drop(self, row: int) -> None:
        super().drop(row)
        self._waiting.remove(row)


def test_the_text_appears_while_it_is_transcribed(browser: Browser, recording: Path) -> None:
    """One paragraph after the other, with progress; a reload in between loses nothing."""
    model = Paced()
    with serving({"speaking": demo.MODEL}, load=lambda folder: Recognizer(model)) as served:
        browser.open(served.address)
        browser.choose(recording)
        browser.until(lambda: browser.all('.entry[data-state="transcribing"]'))
        assert not paragraphs(browser)
        assert not browser.js("return document.getElementById('work').hasAttribute('value')")  # it works; no share
        browser.until(lambda: "for 0:02" in browser.text("#progress"))
        shares = []
        for count in (1, 2):
            model.allowed.release()
            browser.until(lambda count=count: len(paragraphs(browser)) == count)  # type: ignore[misc]
            shares.append(browser.js("return document.querySelector('.entry progress').value"))
            assert browser.js("return document.getElementById('work').value") == shares[-1]
        assert 0 < shares[0] < shares[1] < 1
        assert "so far" in browser.text("#progress")
        browser.driver.refresh()
        browser.until(lambda: browser.js("return document.body.dataset.ready"))
        browser.click(".again-button")
        browser.until(lambda: browser.all('.entry[data-state="transcribing"]'))
        for _ in range(3):
            model.allowed.release()
        browser.transcribed()
        browser.click(".entry .open")
        assert paragraphs(browser) == [SAID.text] * 3


def test_the_key_is_asked_for_and_kept_for_the_tab_only(browser: Browser) -> None:
    with serving(
        {"speaking": demo.MODEL}, Guard("schlüssel"), load=lambda folder: Recognizer(SpeakingModel())
    ) as served:
        browser.driver.get(served.address)
        browser.one("#key").send_keys("wrong\n")
        browser.until(lambda: "wrong" in browser.text("#key-wrong"))
        browser.one("#key").send_keys("schlüssel\n")
        browser.until(lambda: browser.js("return document.body.dataset.ready"))
        browser.choose(CLIPS[0])
        browser.transcribed()
        browser.click("[data-format=txt]")
        assert browser.downloaded(f"{CLIPS[0].stem}.txt") == f"{SAID.text}\n"
        kept = browser.js("return [JSON.stringify(localStorage), JSON.stringify(sessionStorage), document.cookie]")
        assert ["schlüssel" in each for each in kept] == [False, True, False]
        first = browser.driver.current_window_handle
        browser.driver.switch_to.new_window("tab")
        browser.driver.get(served.address)
        browser.one("#key")
        browser.driver.close()
        browser.driver.switch_to.window(first)


def test_texts_and_names_are_never_html(browser: Browser, tmp_path: Path) -> None:
    """Nor is what comes back as an error or a warning. What has no complete text is listed."""
    able = Capabilities(("zh", "en", "x-<b>"), hotwords=True, confidence=True, translation=True)
    failed = replace(SAID, text=HOSTILE, stop_reason="loop", scores=(Score(HOSTILE, 0.4),))
    model = SpeakingModel(f"owner/{HOSTILE}", able, failed)
    file = tmp_path / f"{HOSTILE}.flac"
    shutil.copy(CLIPS[0], file)
    names = {f"first {HOSTILE}": demo.MODEL, f"second {HOSTILE}": demo.MODEL}
    with serving(names, load=lambda folder: Recognizer(model)) as served:
        browser.open(served.address)
        browser.choose(file)
        browser.transcribed()
        assert browser.all(".unit.unsure")
        for _ in range(2):
            assert browser.text("#title") == file.name
            assert HOSTILE in browser.text(".said")
            assert "This text is not complete" in browser.text(".segment.failed")
            assert "repeats itself" in browser.text("#account li")
            assert "not complete" in browser.text(".entry")
            edit(browser, 0, f"corrected {HOSTILE}")
            browser.click("#title")
            browser.until(lambda: "corrected" in browser.text(".said"))
            assert not browser.all(".unit.unsure")
            made = browser.js("return document.querySelectorAll('img, b, [onerror]').length")
            assert (made, browser.js("return window.hacked")) == (1, None)  # the only picture is the page's own
            browser.driver.refresh()
            browser.until(lambda: browser.js("return document.body.dataset.ready"))
            browser.click(".entry .open")
        browser.click("#account .seek")
        browser.until(lambda: time_s(browser) > 0)


def test_what_a_model_can_do_is_offered(browser: Browser) -> None:
    """With its languages, words to expect and translation; the choice is sent, and kept for the next visit."""
    able = Capabilities(("zh", "fil"), hotwords=True, translation=True)
    asked: list[TranscribeOptions] = []

    @dataclass
    class Asked(SpeakingModel):
        def session(self, options: TranscribeOptions) -> SpeakingSession:
            asked.append(options)
            return super().session(options)

    spoken = replace(SAID, translation=Translation("In English.", "en"))
    models = {"a": Asked("a", able, spoken), "b": Asked("b", Capabilities(("en",)))}
    folders = {"a": demo.MODEL, "b": demo.MODEL}
    order = itertools.cycle(models.values())
    with serving(folders, load=lambda folder: Recognizer(next(order))) as served:
        served.service.shelf.recognizer(served.service.shelf.find("b"), ())
        browser.open(served.address)
        languages = "return [...document.getElementById('language').options].map(each => each.text)"
        assert browser.js(languages) == ["Automatic", "Chinese", "Filipino"]
        browser.js("document.getElementById('language').value = 'fil'")
        browser.js("document.getElementById('language').dispatchEvent(new Event('change', {bubbles: true}))")
        browser.one("#terms").send_keys("Quezon, Baguio\t")
        browser.click("#translate")
        browser.driver.refresh()
        browser.until(lambda: browser.js("return document.body.dataset.ready"))
        browser.choose(CLIPS[0])
        browser.transcribed()
        found = asked[-1]
        assert (found.language, found.hotwords, found.translate) == ("fil", ("Quezon", "Baguio"), True)
        assert browser.text(".translation") == "In English."
        browser.js("document.getElementById('model').value = 'b'")
        browser.js("document.getElementById('model').dispatchEvent(new Event('change', {bubbles: true}))")
        assert browser.js(languages) == ["Automatic", "English"]
        assert not browser.all("#terms")[0].is_displayed()
        assert not browser.all("#translate")[0].is_displayed()
        browser.choose(CLIPS[0])
        browser.transcribed(2)
        assert (asked[-1].hotwords, asked[-1].translate) == ((), False)


@pytest.fixture(scope="module")
def meeting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A loud speaker, again after a pause, and a quiet one."""
    path, speech, pause = tmp_path_factory.mktemp("meeting") / "Meeting.wav", spoken(), np.zeros(2 * RATE_HZ)
    parts = [LOUD * speech, pause, LOUD * speech, pause, QUIET * speech]
    soundfile.write(path, np.concatenate(parts), RATE_HZ, "FLOAT")
    return path


def names(browser: Browser) -> list[str | None]:
    """Return the name above each paragraph."""
    return browser.js(
        "return [...document.querySelectorAll('.segment')]"
        ".map(each => each.querySelector('.speaker')?.textContent ?? null)"
    )


def test_speakers(browser: Browser, meeting: Path) -> None:
    """Asked for with the keyboard, named where they change, kept with corrections, in all formats."""
    with serving({"timed": demo.MODEL}, load=lambda _: recognizer(), load_voices=Levels) as served:
        browser.open(served.address)
        browser.choose(meeting)
        browser.transcribed()
        browser.until(lambda: names(browser) == [None] * 3)  # no is the default
        browser.one("#language").send_keys("\ue004")  # Tab
        assert browser.driver.switch_to.active_element.get_attribute("id") == "speakers"
        browser.press("Y")
        asks = "import('./options.js').then(options => arguments[0](Object.fromEntries(options.fields())))"
        assert browser.driver.execute_async_script(asks)["speakers"] == "auto"
        browser.js("document.getElementById('speakers').value = '2'")
        browser.js("document.getElementById('speakers').dispatchEvent(new Event('change', {bubbles: true}))")
        browser.driver.refresh()
        browser.until(lambda: browser.js("return document.body.dataset.ready"))
        assert browser.driver.execute_async_script(asks)["speakers"] == "2"
        browser.choose(meeting)
        browser.transcribed(2)
        told = ["Speaker 1", None, "Speaker 2"]
        browser.until(lambda: names(browser) == told)
        assert "2 speakers" in browser.text("#facts")

        edit(browser, 2, "one too three")
        assert names(browser) == told
        browser.press("\n")
        browser.until(lambda: paragraphs(browser) == [" ".join(WORDS), " ".join(WORDS), "one too three"])
        browser.driver.refresh()
        browser.until(lambda: browser.js("return document.body.dataset.ready"))
        browser.click(".entry .open")
        assert names(browser) == told
        saved = transcript_in(browser, "Meeting.json")
        spoken_by = [(segment.speaker, {word.speaker for word in segment.words}) for segment in saved.segments]
        assert spoken_by == [(name, {name}) for name in ("Speaker 1", "Speaker 1", "Speaker 2")]
        assert saved.segments[2].text == "one too three"
        for format in ("txt", "srt", "vtt"):
            browser.click(f"[data-format={format}]")
            assert browser.downloaded(f"Meeting.{format}") == WRITERS[format](saved)
        assert "Speaker 2: one too three" in browser.downloaded("Meeting.txt")

    with serving({"timed": demo.MODEL}, load=lambda _: recognizer()) as served:  # has no model of voices
        browser.open(served.address)
        browser.js("localStorage.setItem('funasr.speakers', 'auto')")
        browser.driver.refresh()
        browser.until(lambda: browser.js("return document.body.dataset.ready"))
        assert browser.one("#language")
        assert not browser.all("#speakers")[0].is_displayed()
        browser.choose(meeting)
        browser.transcribed()
        browser.until(lambda: names(browser) == [None] * 3)


def test_names_of_speakers_are_text_and_readable(page: Browser, served: Served, recording: Path) -> None:
    """Also of one who is not known, after one who is; on a phone and a desk, dark and light."""
    own = json.loads(served.transcribe(recording, response_format="full_json").content)
    for segment, name in zip(own["segments"], (HOSTILE, "x" * 200, None), strict=True):
        segment["speaker"] = name
    entry = {"name": "Told.wav", "created": 0, "fields": [], "state": "done", "error": "", "transcript": own,
             "corrections": {}}  # fmt: skip
    keep(page, entry)
    page.click(".entry .open")
    assert names(page) == [HOSTILE, "x" * 200, "Unknown speaker"]
    assert page.js("return [document.querySelectorAll('img').length, window.hacked]") == [1, None]
    for dark, width in itertools.product((False, True), WIDTHS):
        page.resize(width, 844, dark=dark)
        assert page.js("return document.documentElement.scrollWidth - innerWidth") <= 0
        assert contrast(page, ".speaker") >= READABLE, (dark, width)


def test_all_of_it_with_the_keyboard(page: Browser, recording: Path) -> None:
    """Everything that takes the focus has a name and shows the focus; the player's keys; a correction."""
    page.choose(recording)
    page.transcribed()
    page.js("document.activeElement.blur(); getSelection().removeAllRanges()")
    seen = []
    for _ in range(60):
        page.press("\ue004")  # Tab
        found = page.driver.switch_to.active_element
        if found.tag_name == "body":  # after the last one
            continue
        if found.id in [other.id for other in seen]:
            break
        seen.append(found)
        outlined = "for (let each = arguments[0], i = 0; i < 2; each = each.parentElement, i++) " \
                   "if (getComputedStyle(each).outlineStyle !== 'none') return true"  # fmt: skip
        assert found.accessible_name, found.get_attribute("outerHTML")
        assert page.js(outlined, found), found.get_attribute("outerHTML")
    ids = {found.get_attribute("id") for found in seen}
    assert {"files", "record", "language", "terms", "play", "seek", "speed", "tint", "scheme"} <= ids
    assert sum(found.get_attribute("class") == "seek" for found in seen) == len(TEXTS)

    page.one(".entry .open").send_keys("\n")
    page.press(" ")
    page.until(lambda: page.js("return !document.getElementById('audio').paused"))
    page.press(" ")
    page.until(lambda: page.js("return document.getElementById('audio').paused"))
    page.js("document.getElementById('audio').currentTime = 0.5")
    page.until(lambda: page.text(".segment.now .said") == TEXTS[0])
    page.press("\ue015")  # down: the next paragraph
    page.until(lambda: page.text(".segment.now .said") == TEXTS[1])
    page.press("\ue015")
    page.until(lambda: page.text(".segment.now .said") == TEXTS[2])
    page.press("\ue013")
    page.until(lambda: page.text(".segment.now .said") == TEXTS[1])
    before_s = time_s(page)
    page.press("\ue012")  # left
    page.until(lambda: time_s(page) == pytest.approx(max(0, before_s - 5), abs=0.1))
    page.press("\ue014")
    page.until(lambda: page.text(".segment.now .said") == TEXTS[1])
    page.press("e")
    page.one("textarea").send_keys("\ue009a", "\ue000", "Kept.\n")
    page.until(lambda: paragraphs(page)[1] == "Kept.")
    assert page.driver.switch_to.active_element.get_attribute("class") == "edit quiet"


def contrast(browser: Browser, selector: str) -> float:
    """Return the contrast of an element's text with what is below it."""
    colours = browser.js("""
        const context = Object.assign(new OffscreenCanvas(1, 1).getContext("2d"), {});
        const rgb = (colour) => { context.clearRect(0, 0, 1, 1); context.fillStyle = colour;
            context.fillRect(0, 0, 1, 1); return [...context.getImageData(0, 0, 1, 1).data]; };
        const found = document.querySelector(arguments[0]);
        let below = found;
        while (rgb(getComputedStyle(below).backgroundColor)[3] === 0) below = below.parentElement;
        return [rgb(getComputedStyle(found).color), rgb(getComputedStyle(below).backgroundColor)];
    """, selector)  # fmt: skip
    linear = [[c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in np.array(colour[:3]) / 255]
              for colour in colours]  # fmt: skip
    darker, lighter = sorted(np.dot([0.2126, 0.7152, 0.0722], colour) for colour in linear)
    return (lighter + 0.05) / (darker + 0.05)


def test_dark_and_light_on_a_phone_and_a_desk(page: Browser, recording: Path) -> None:
    """The system's scheme, and the switch, which is kept; all text is readable, nothing is wider than the page."""
    page.choose(recording)
    page.transcribed()
    page.js("document.querySelectorAll('.unit')[1].click(); document.getElementById('audio').pause()")
    page.one(".spoken")
    page.js("const units = document.querySelectorAll('.unit'); units[3].classList.add('unsure'); "
            "units[4].classList.add('doubtful')")  # fmt: skip
    lightness = {}
    for dark, width in itertools.product((False, True), WIDTHS):
        page.resize(width, 844, dark=dark)
        lightness[dark] = page.js("return getComputedStyle(document.body).backgroundColor")
        assert page.js("return document.documentElement.scrollWidth - innerWidth") <= 0
        assert page.one("#play").is_displayed()
        for selector in (".said", ".spoken", ".hint", "#facts", ".seek", ".unit.unsure", ".unit.doubtful",
                         ".exports", ".time", "#account"):  # fmt: skip
            assert contrast(page, selector) >= READABLE, (dark, selector)
    assert lightness[False] != lightness[True]
    page.click("#scheme")
    assert page.js("return getComputedStyle(document.body).backgroundColor") == lightness[False]
    page.driver.refresh()
    page.until(lambda: page.js("return document.body.dataset.ready"))
    assert page.js("return getComputedStyle(document.body).backgroundColor") == lightness[False]


def test_many_recordings_in_a_low_window(browser: Browser) -> None:
    """A short text makes no second scroll bar; the player covers nothing; names are whole."""
    models = {f"a-model-with-a-long-name-{last}": demo.MODEL for last in ("hf", "mlx")}
    able = Capabilities(tuple(LANGUAGES))
    with serving(models, load=lambda folder: Recognizer(SpeakingModel(capabilities=able))) as served:
        served.service.shelf.recognizer(served.service.shelf.default, ())
        browser.open(served.address)
        browser.resize(1280, 650)
        browser.choose(*CLIPS)
        browser.transcribed(len(CLIPS))
        browser.one("#player")
        assert browser.js("return document.documentElement.scrollHeight - innerHeight") <= 0
        browser.js("const side = document.querySelector('.side'); side.scrollTop = side.scrollHeight")
        bottom, top = (
            browser.js(f"return document.querySelector('{each}').getBoundingClientRect().{side}")
            for each, side in (("#privacy", "bottom"), ("#player", "top"))
        )
        assert bottom <= top
        model = browser.one("#model")
        assert model.get_attribute("title") == model.get_attribute("value") == next(iter(models))
        languages = "return [...document.getElementById('language').options].map(each => [each.value, each.text])"
        assert [code for code, name in browser.js(languages) if code == name] == []


def test_an_hour_of_words(page: Browser, served: Served) -> None:
    """Ten thousand words: the last one can be clicked and corrected, and no word has its own listener."""
    own = json.loads(served.transcribe(CLIPS[1], response_format="full_json").content)
    [segment] = own["segments"]

    def later(part: dict[str, Any], by_s: float) -> dict[str, Any]:
        words = [later(word, by_s) for word in part.get("words", ())]
        return (
            part
            | {"start_s": part["start_s"] + by_s, "end_s": part["end_s"] + by_s}
            | ({"words": words} if words else {})
        )

    own["segments"] = [later(segment, 2.5 * number) for number in range(1429)]
    own["duration_s"] = 2.5 * len(own["segments"])
    entry = {"name": "Hour.wav", "created": 0, "fields": [], "state": "done", "error": "", "transcript": own,
             "corrections": {}}  # fmt: skip
    keep(page, entry)
    page.click(".entry .open")
    assert page.js("return document.querySelectorAll('.unit').length") == 7 * 1429
    page.one("#again")  # there is no recording, and the page says so
    edit(page, 1428, "The end.")
    page.press("\n")
    page.until(lambda: paragraphs(page)[-1] == "The end.")
    page.click("[data-format=srt]")
    assert page.downloaded("Hour.srt").rstrip().endswith("The end.")
    listeners = page.driver.execute_cdp_cmd("Runtime.evaluate", {"expression": "document.querySelector('.unit')"})
    found = page.driver.execute_cdp_cmd(
        "DOMDebugger.getEventListeners", {"objectId": listeners["result"]["objectId"]}
    )
    assert found["listeners"] == []
    page.all("#again-file")[0].send_keys(str(CLIPS[1]))
    page.one("#play")
    play_from(page, "and", 2)
