"""Recorded speech with its texts, from Debian packages: single phrases, and one long recording with true times.

Texts are plain (letters and ordinary punctuation), and phrases 1 to 15 s long. Most are prompts of the telephone
system Asterisk, at 8 kHz, with one voice for each language; the English ones also at 16 kHz (G.722). Five
sentences of a novel and five names of playing cards come from the test data of PocketSphinx, at 16 kHz.
"""

import gzip
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import soundfile

from funasr_cli.audio.decode import load_audio
from funasr_cli.errors import SetupError
from tools.accuracy.joined import make_noise, speech_extent, speech_power
from tools.real_data.cache import LONG, SPEECH, Part

VOICES = {
    "en": "en_US_f_Allison",
    "es": "es_MX_f_Allison",
    "fr": "fr_CA_f_June",
    "it": "it_IT_m_Carlo",
    "ru": "ru_RU_f_IvrvoiceRU",
}
ASTERISK_LICENCE, LIBRIVOX_LICENCE, CARDS_LICENCE = "CC-BY-SA-3.0", "public domain (LibriVox)", "BSD-2-Clause"
DIGESTS = {  # SHA-256 of the list of hashes of a language's folder
    "en": "f15aadb9d131d119300f650889a53243b7e41e8a790466cf437b47ccfa5aa6b6",
    "es": "32ab3dd94d157798eac58b10aad677387eceb50e3072d0fa46121ae951abe2c6",
    "fr": "297e06bcf6de6600b86e267e35727850de285ad1805d49f968a2c1ebd40cae37",
}
DURATION_S = (1.0, 15.0)
NOT_PLAIN = re.compile(r"[^\w\s.,;:!?'’\"«»„“”–—…-]|[\d_]")
PAUSES_S = (0.3, 0.8, 1.6)  # between the phrases of the long recording, in turns
NARROW, WIDE, NOISY = LONG_RECORDINGS = ("as-recorded", "wide", "noisy")
SNR_DB, SEED = 10.0, 1
WIDE_HZ = 16_000


class Phrase(NamedTuple):
    """A recording in an unpacked package, with its text."""

    path: Path
    text: str
    speaker: str
    source: str
    licence: str


def write_phrases(language: str, folder: Path) -> None:
    """Write the phrases of a language as WAV files, and `texts.jsonl` with a line for each."""
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        phrases = [*prompts(language, "wav", Path(temporary))]
        if language == "en":
            phrases += recogniser_tests(Path(temporary))
        for phrase in select(phrases):
            name = "-".join(dict.fromkeys((phrase.speaker, phrase.path.parent.name, phrase.path.name)))
            shutil.copyfile(phrase.path, folder / name)
            duration_s = round(soundfile.info(phrase.path).duration, 3)
            own = {"file": name, "text": phrase.text, "language": language, "duration_s": duration_s}
            rows.append(own | {"speaker": phrase.speaker, "source": phrase.source, "licence": phrase.licence})
    write_rows(folder / "texts.jsonl", rows)


def write_long(folder: Path) -> None:
    """Write the English prompts as one recording: as recorded at 8 kHz, at 16 kHz, and the latter with noise.

    A `.jsonl` of the same name has the text of each phrase, its start and end, and those of the sound within it.
    """
    with tempfile.TemporaryDirectory() as temporary:
        for name, kind in ((NARROW, "wav"), (WIDE, "g722")):
            phrases = list(select(prompts("en", kind, Path(temporary))))
            if kind == "g722":
                phrases = [phrase._replace(path=decode_g722(phrase.path)) for phrase in phrases]
            rows = join(phrases, folder / f"{name}.wav")
            write_rows(folder / f"{name}.jsonl", rows)
    samples, rate_hz = soundfile.read(folder / f"{WIDE}.wav")
    spans = [(round(row["start_s"] * rate_hz), round(row["end_s"] * rate_hz)) for row in rows]
    power = speech_power([samples[start:end] for start, end in spans])
    noise = make_noise(len(samples), np.random.default_rng(SEED))
    samples += np.sqrt(power / 10 ** (SNR_DB / 10)) * noise
    samples /= max(1.0, np.abs(samples).max() / 0.99)
    soundfile.write(folder / f"{NOISY}.wav", samples, rate_hz, subtype="PCM_16")
    write_rows(folder / f"{NOISY}.jsonl", rows)


def join(phrases: Iterable[Phrase], path: Path) -> list[dict[str, Any]]:
    """Write phrases of one sample rate into one file, each followed by a pause, and return where they are."""
    rows, parts, position = [], [], 0
    for phrase, pause_s in zip(phrases, cycle(PAUSES_S), strict=False):
        samples, rate_hz = soundfile.read(phrase.path, dtype="int16")  # (samples,)
        pause = np.zeros(int(pause_s * rate_hz), np.int16)
        start, end = speech_extent(load_audio(phrase.path, WIDE_HZ).samples)
        start_s = position / rate_hz
        rows.append(
            {
                "text": phrase.text,
                "start_s": round(start_s, 4),
                "end_s": round(start_s + len(samples) / rate_hz, 4),
                "sound_start_s": round(start_s + start / WIDE_HZ, 4),
                "sound_end_s": round(start_s + end / WIDE_HZ, 4),
            }
        )
        parts += [samples, pause]
        position += len(samples) + len(pause)
    soundfile.write(path, np.concatenate(parts), rate_hz, subtype="PCM_16")
    return rows


def prompts(language: str, kind: str, work: Path) -> Iterator[Phrase]:
    """Yield the prompts of Asterisk; its list of texts has lines `name: text`, and comments after `;`."""
    package, voice = f"asterisk-core-sounds-{language}", VOICES[language]
    texts = unpack(package, work) / f"doc/{package}/core-sounds-{language}.txt.gz"
    sounds = unpack(f"{package}-{kind}", work) / "asterisk/sounds" / voice
    for line in gzip.decompress(texts.read_bytes()).decode().splitlines():
        name, colon, text = line.partition(":")
        path = sounds / f"{name.strip()}.{kind}"
        if colon and not line.startswith(";") and path.is_file():
            yield Phrase(path, text, voice, package, ASTERISK_LICENCE)


def recogniser_tests(work: Path) -> Iterator[Phrase]:
    """Yield the test data of PocketSphinx; its lists have lines `<s> text </s> (name)`."""
    data = unpack("pocketsphinx-testdata", work) / "pocketsphinx/test/data"
    for speaker, texts, licence in (
        ("librivox", "librivox/transcription", LIBRIVOX_LICENCE),
        ("cards", "cards/cards.transcription", CARDS_LICENCE),
    ):
        for text, name in re.findall(r"<s>(.*?)</s> \((.*?)\)", (data / texts).read_text(encoding="utf-8")):
            yield Phrase(data / speaker / f"{name}.wav", text, speaker, "pocketsphinx-testdata", licence)


def select(phrases: Iterable[Phrase]) -> Iterator[Phrase]:
    """Yield the phrases that have a plain text and a suitable length, without superfluous white space."""
    for phrase in phrases:
        text = " ".join(phrase.text.split())
        if text and not NOT_PLAIN.search(text):
            if phrase.path.suffix == ".g722":  # 64 kbit/s, without a header
                duration_s = phrase.path.stat().st_size / 8000
            else:
                duration_s = soundfile.info(phrase.path).duration
            if DURATION_S[0] <= duration_s <= DURATION_S[1]:
                yield phrase._replace(text=text)


def decode_g722(path: Path) -> Path:
    """Decode a file of G.722 to a 16 kHz WAV file next to it, and return that."""
    with av.open(str(path), format="g722") as container:
        blocks = [frame.to_ndarray()[0] for frame in container.decode(audio=0)]
    decoded = path.with_suffix(".wav")
    soundfile.write(decoded, np.concatenate(blocks), WIDE_HZ, subtype="PCM_16")
    return decoded


def unpack(package: str, work: Path) -> Path:
    """Download a Debian package and unpack it without installing it; return its /usr/share.

    apt's own lists of packages are used if they have the package. Otherwise lists are fetched into the work
    folder, so that neither root nor an earlier `apt-get update` is needed. apt verifies hashes and signatures.

    Raises:
        SetupError: this system has no apt, or the package cannot be downloaded.
    """
    folder = work / package
    if not folder.exists():
        if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
            raise SetupError("apt-get: not found; the recordings are Debian packages", code="command-missing")
        done = _apt(["download", package], work)
        if done.returncode:
            own = _own_lists(work)
            _apt([*own, "update"], work)
            done = _apt([*own, "download", package], work)
        archive = next(work.glob(f"{package}_*.deb"), None)
        if done.returncode or archive is None:
            reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise SetupError(f"apt-get download {package}: {reason}", "check the network", code="download-failed")
        subprocess.run(["dpkg-deb", "--extract", archive, folder], check=True, capture_output=True)
    return folder / "usr/share"


def _own_lists(work: Path) -> list[str]:
    """Return the options with which apt keeps its lists in the work folder."""
    for name in ("lists/partial", "archives/partial"):
        (work / "apt" / name).mkdir(parents=True, exist_ok=True)
    values = (f"Dir::State::Lists={work / 'apt/lists'}", f"Dir::Cache={work / 'apt'}", "Debug::NoLocking=1")
    return [word for value in values for word in ("-o", value)]


def _apt(arguments: list[str], work: Path) -> subprocess.CompletedProcess[str]:
    options = ("-qq", "-o", "Acquire::Retries=1", "-o", "Acquire::http::Timeout=20")
    command = ["apt-get", *options, *arguments]
    return subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write a JSON object on each line."""
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text("".join(lines), encoding="utf-8")


PARTS = (
    *(
        Part(f"{SPEECH}/{language}", f"Debian asterisk-core-sounds-{language}; CC-BY-SA-3.0",
             partial(write_phrases, language), DIGESTS[language])
        for language in DIGESTS
    ),
    Part(LONG, "the English prompts of Asterisk; CC-BY-SA-3.0", write_long),
)  # fmt: skip
