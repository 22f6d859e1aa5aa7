"""Clips of several voices, a folder each, as their Debian packages have them; for telling speakers apart.

Prompts of Asterisk with plain texts, one voice for each language, at 16 kHz (G.722); dialogues of the game Fish
Fillets, two actors in each language (Ogg Vorbis); a reader of LibriVox (WAV). All are 1 to 15 s long.
"""

import re
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

from funasr_cli.audio.decode import load_audio
from tools.real_data.cache import SEVERAL, Part
from tools.real_data.speech import DURATION_S, VOICES, decode_g722, prompts, select, unpack

LANGUAGES = ("en", "fr", "it", "ru")  # of the prompts: the Spanish voice is the English one
GAMES, FISH = ("cs", "nl"), re.compile("-([mv])-")
VOICE_S = 1000.0  # of each voice at most
DIGEST = "59eb4c7e9bff12c47feabbf9ddaec0d4cc524d29adaa8df3afb8803beccec7d5"  # SHA-256 of the list of hashes
G722_BYTES_A_SECOND = 8000


def write_voices(folder: Path) -> None:
    """Copy clips of each voice into a folder of its name, up to `VOICE_S`."""
    with tempfile.TemporaryDirectory() as temporary:
        total_s = defaultdict[str, float](float)
        for voice, name, path in _clips(Path(temporary)):
            is_prompt = path.suffix == ".g722"
            length_s = path.stat().st_size / G722_BYTES_A_SECOND if is_prompt else soundfile.info(path).duration
            if DURATION_S[0] <= length_s <= DURATION_S[1] and total_s[voice] + length_s <= VOICE_S:
                total_s[voice] += length_s
                (folder / voice).mkdir(exist_ok=True)
                shutil.copyfile(path, folder / voice / name)


def _clips(work: Path) -> Iterator[tuple[str, str, Path]]:
    """Yield the voice, a name and the file of each recording."""
    for language in LANGUAGES:
        for phrase in select(prompts(language, "g722", work)):
            yield VOICES[language], f"{phrase.path.parent.name}-{phrase.path.name}", phrase.path
    for language in GAMES:
        folder = unpack(f"fillets-ng-data-{language}", work) / "games/fillets-ng/sound"
        for path in sorted(folder.glob(f"*/{language}/*.ogg")):
            if fish := FISH.search(path.name):
                yield f"fillets-{language}-{fish[1]}", f"{path.parts[-3]}-{path.name}", path
    folder = unpack("pocketsphinx-testdata", work) / "pocketsphinx/test/data/librivox"
    yield from (("librivox", path.name, path) for path in sorted(folder.glob("*.wav")))


def read_clip(path: Path, rate_hz: int) -> np.ndarray:
    """Read a clip of any of the formats: (samples,)."""
    if path.suffix != ".g722":
        return load_audio(path, rate_hz).samples
    with tempfile.TemporaryDirectory() as temporary:  # where it is decoded, next to the copy
        return load_audio(decode_g722(Path(shutil.copy(path, temporary))), rate_hz).samples


LICENCES = "CC-BY-SA-3.0 (Asterisk), GPL-2 (Fish Fillets), public domain (LibriVox)"
PARTS = (Part(SEVERAL, f"Debian packages; {LICENCES}", write_voices, DIGEST),)
