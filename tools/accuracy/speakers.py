"""Tell speakers apart in mixtures of real voices: errors by threshold, and those of FunASR's clustering.

    python -m tools.accuracy.speakers MODEL OUT [--mixtures N] [--minutes M] [--conditions C ...]

MODEL is a converted CAM++. Embeddings and truths are written to OUT, one .npz for each mixture and condition, and
are not computed again. Speech is given, not detected. Recordings come from Debian packages, as in
tools.real_data: prompts of Asterisk (four voices), dialogues of the game Fillets (two actors in each of two
languages), a reader of LibriVox. Needs apt-get and `pip install pyannote.metrics`. FunASR's clustering runs in
.venv-reference, if there is one, with NumPy's seed 0.
"""

import argparse
import json
import re
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soxr

from funasr_cli.audio.decode import load_audio
from funasr_cli.diarization import WINDOW_S, Turn, cluster, turns, windows
from funasr_cli.families.load import load_speakers
from funasr_cli.options import DEFAULTS
from funasr_cli.speaker_model import SpeakerModel
from tools.accuracy.joined import make_noise
from tools.real_data.speech import decode_g722, unpack

RATE_HZ = 16000
PROMPTS = {"en": "en_US_f_Allison", "fr": "fr_CA_f_June", "it": "it_IT_m_Carlo", "ru": "ru_RU_f_IvrvoiceRU"}
GAMES = ("cs", "nl")
CLIPS = 60  # of each voice
CLIP_S = (1.0, 15.0)
THRESHOLDS = (0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9)
CONDITIONS = ("clean", "noise", "8 kHz")
SNR_DB = 10
COLLAR_S = 0.25
SEGMENT_PAUSE_S = 0.3  # a longer one separates segments
REFERENCE = Path(".venv-reference/bin/python")
FUNASR_WAYS = ("FunASR", "FunASR, number given")
FUNASR = Path(__file__).with_name("speakers_funasr.py")
Said = list[tuple[float, float, str]]  # start, end and voice


def voices(work: Path) -> dict[str, list[np.ndarray]]:
    """Return clips (samples,) of each voice at 16 kHz."""
    paths = defaultdict[str, list[Path]](list)
    for language, voice in PROMPTS.items():
        folder = unpack(f"asterisk-core-sounds-{language}-g722", work) / "asterisk/sounds" / voice
        paths[voice] = [path for path in sorted(folder.rglob("*.g722")) if path.stat().st_size > 8000 * CLIP_S[0]]
    for language in GAMES:
        folder = unpack(f"fillets-ng-data-{language}", work) / "games/fillets-ng/sound"
        for path in sorted(folder.glob(f"*/{language}/*.ogg")):
            if fish := re.search("-([mv])-", path.name):
                paths[f"fillets-{language}-{fish[1]}"].append(path)
    folder = unpack("pocketsphinx-testdata", work) / "pocketsphinx/test/data/librivox"
    paths["librivox"] = sorted(folder.glob("*.wav"))
    found = {}
    for voice, all_of_it in paths.items():
        clips, draw = list[np.ndarray](), np.random.default_rng(0)
        for place in draw.permutation(len(all_of_it)):
            if len(clips) == CLIPS:
                break
            path = all_of_it[place]
            clip = load_audio(decode_g722(path) if path.suffix == ".g722" else path, RATE_HZ).samples
            if CLIP_S[0] <= len(clip) / RATE_HZ <= CLIP_S[1]:
                clips.append(trimmed(clip))
        found[voice] = clips
    return found


def trimmed(clip: np.ndarray) -> np.ndarray:
    """Cut silence from both ends, below a hundredth of the loudest 20 ms, and scale to a common level."""
    levels = np.sqrt((clip[: len(clip) // 320 * 320].reshape(-1, 320) ** 2).mean(axis=1))
    loud = np.flatnonzero(levels > levels.max() / 50)
    own = clip[loud[0] * 320 : (loud[-1] + 1) * 320]
    return own * (0.05 / max(float(np.sqrt((own**2).mean())), 1e-6))


def mixture(of: dict[str, list[np.ndarray]], number: int, seconds: float, seed: int) -> tuple[np.ndarray, Said]:
    """Return a talk of some voices with turns of 1 to 15 s, pauses of 0.1 to 0.6 s, and who spoke when."""
    draw = np.random.default_rng(seed)
    cast = draw.permutation(sorted(of))[:number].tolist()
    places, said, parts, at, last = dict.fromkeys(cast, 0), Said(), list[np.ndarray](), 0, ""
    while at < seconds * RATE_HZ:
        voice = str(draw.choice([each for each in cast if each != last]))
        wanted, start = draw.uniform(1, 15) * RATE_HZ, at
        while at - start < wanted:
            clip = of[voice][places[voice] % len(of[voice])]
            places[voice] += 1
            if at > start and at - start + len(clip) > CLIP_S[1] * RATE_HZ:
                break
            parts.append(clip)
            at += len(clip)
        said.append((start / RATE_HZ, at / RATE_HZ, voice))
        parts.append(np.zeros(int(draw.uniform(0.1, 0.6) * RATE_HZ), np.float32))
        at, last = at + len(parts[-1]), voice
    return np.concatenate(parts).astype(np.float32), said


def changed(samples: np.ndarray, condition: str, seed: int) -> np.ndarray:
    """Return a mixture in a condition."""
    if condition == "noise":
        power = float((samples[samples != 0] ** 2).mean())
        noise = make_noise(len(samples), np.random.default_rng(seed))
        return (samples + np.sqrt(power / 10 ** (SNR_DB / 10)) * noise).astype(np.float32)
    if condition == "8 kHz":
        return soxr.resample(soxr.resample(samples, RATE_HZ, 8000), 8000, RATE_HZ).astype(np.float32)
    return samples


def segments(said: Said) -> list[tuple[float, float]]:
    """Return stretches of speech: turns that are closer than `SEGMENT_PAUSE_S` are one."""
    found: list[tuple[float, float]] = []
    for start_s, end_s, _ in said:
        if found and start_s - found[-1][1] < SEGMENT_PAUSE_S:
            found[-1] = (found[-1][0], end_s)
        else:
            found.append((start_s, end_s))
    return found


def embedded(model: SpeakerModel, samples: np.ndarray, said: Said) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return times (windows, 2), embeddings (windows, width) and segment (windows,) of all windows."""
    spans, clips, places = [], [], []
    for place, (start_s, end_s) in enumerate(segments(said)):
        for first_s, last_s in windows(end_s - start_s):
            begin, size = round((start_s + first_s) * RATE_HZ), round(WINDOW_S * RATE_HZ)
            clip = samples[begin : min(begin + size, round(end_s * RATE_HZ))]
            clips.append(np.pad(clip, (0, size - len(clip))))
            spans.append((start_s + first_s, start_s + last_s))
            places.append(place)
    return np.array(spans), model.embed(np.stack(clips)), np.array(places)


def told_apart(kept: dict[str, np.ndarray], threshold: float, number: int | None = None) -> list[Turn]:
    """Return the turns that this package finds, given the number of speakers or not."""
    labels = cluster(kept["vectors"], threshold, number or 1, number)
    found = []
    for place, (_, end_s) in enumerate(kept["segments"].tolist()):
        own = kept["places"] == place
        found += turns([tuple(span) for span in kept["spans"][own].tolist()], labels[own].tolist(), end_s)
    return found


def score(found: list[Turn], said: Said) -> float:
    """Return the share of speech with the wrong speaker (DER), with a collar around each change."""
    from pyannote.core import Annotation, Segment
    from pyannote.metrics.diarization import DiarizationErrorRate

    truth, guess = Annotation(), Annotation()
    for start_s, end_s, voice in said:
        truth[Segment(start_s, end_s)] = voice
    for place, turn in enumerate(found):
        guess[Segment(turn.start_s, turn.end_s), place] = turn.speaker
    # The scorer's collar is the whole width. Pauses inside segments are no false alarms: speech is given.
    return float(DiarizationErrorRate(collar=2 * COLLAR_S)(truth, guess.crop(truth.get_timeline())))


def kept_mixtures(
    model: Path, out: Path, conditions: list[str], mixtures: int, minutes: float
) -> Iterator[tuple[str, Path]]:
    """Yield condition and file of each mixture, after making those that are missing."""
    wanted = [
        (condition, 2 + index % 4, out / f"{condition.replace(' ', '')}-{minutes:g}min-{index:02}.npz", index)
        for condition in conditions
        for index in range(mixtures)
    ]
    if any(not path.exists() for _, _, path, _ in wanted):
        loaded = load_speakers(model)
        with tempfile.TemporaryDirectory() as temporary:
            of = voices(Path(temporary))
        for condition, number, path, index in wanted:
            if not path.exists():
                samples, said = mixture(of, number, minutes * 60, index)
                spans, vectors, places = embedded(loaded, changed(samples, condition, index), said)
                truth = np.array(json.dumps(said))
                np.savez(path, spans=spans, vectors=vectors, places=places, segments=segments(said), said=truth)
    yield from ((condition, path) for condition, _, path, _ in wanted)


def funasr_turns(paths: list[Path]) -> dict[Path, dict[str, list[Turn]]]:
    """Return what FunASR finds in each mixture, by method; nothing without the environment of the reference."""
    if not REFERENCE.is_file():
        return {}
    command = [str(each) for each in (REFERENCE, FUNASR, *paths)]
    written = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    lines = [json.loads(line.removeprefix("turns ")) for line in written if line.startswith("turns ")]
    return {
        path: {way: [Turn(*each) for each in found] for way, found in zip(FUNASR_WAYS, line, strict=True)}
        for path, line in zip(paths, lines, strict=True)
    }


def main() -> None:
    """Make mixtures, and print a table of errors."""
    parser = argparse.ArgumentParser(prog="python -m tools.accuracy.speakers", description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--mixtures", type=int, default=16, help="of 2, 3, 4 and 5 speakers in turns")
    parser.add_argument("--minutes", type=float, default=1.5, help="length of each")
    parser.add_argument("--conditions", nargs="+", choices=CONDITIONS, default=CONDITIONS)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    made = list(kept_mixtures(options.model, options.out, options.conditions, options.mixtures, options.minutes))
    rows: dict[tuple[str, str], list[tuple[int, int, float]]] = defaultdict(list)
    answers = funasr_turns([path for _, path in made])
    for condition, path in made:
        kept = dict(np.load(path))
        said: Said = [tuple(each) for each in json.loads(str(kept["said"]))]
        number = len({voice for _, _, voice in said})
        ways = {f"threshold {threshold}": told_apart(kept, threshold) for threshold in THRESHOLDS}
        ways["number given"] = told_apart(kept, DEFAULTS.speaker_threshold, number)
        ways |= answers.get(path, {})
        for way, found in ways.items():
            rows[condition, way].append((number, len({turn.speaker for turn in found}), score(found, said)))
    print("| condition | method | right number, 2 to 4 | right number, 5 | DER, mean | DER, worst |")
    print("|---|---|---|---|---|---|")
    for (condition, way), results in rows.items():
        few = [guess == number for number, guess, _ in results if number <= 4]
        many = [guess == number for number, guess, _ in results if number > 4]
        errors = [100 * error for _, _, error in results]
        counts = f"{sum(few)} of {len(few)} | {sum(many)} of {len(many)}"
        print(f"| {condition} | {way} | {counts} | {np.mean(errors):.1f} % | {max(errors):.1f} % |")


if __name__ == "__main__":
    main()
