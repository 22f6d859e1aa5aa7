"""FunASR's part of tools.accuracy.speakers: `detect FOLDER`, or `cluster FILE.npz ...`.

Runs in the environment of the reference, without this package. `detect` reads the names of files of samples, and
prints the segments that FSMN-VAD finds in each by default and with fixed pauses. `cluster` writes a JSON file next
to each file of embeddings: turns by method, also those that `sentence_info` has without punctuation, which are
whole segments with one speaker each.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from funasr.models.campplus.cluster_backend import ClusterBackend
from funasr.models.campplus.utils import distribute_spk, postprocess

torch.set_num_threads(1)


def detect(folder: str) -> None:
    """Find segments in files that are named on standard input."""
    from funasr import AutoModel

    auto = AutoModel(model=folder, device="cpu", ncpu=1, disable_update=True, disable_pbar=True, log_level="ERROR")
    for line in sys.stdin:
        samples = torch.from_numpy(np.load(line.strip()))
        ways = [auto.generate(input=samples, cache={}, **each) for each in ({}, {"dynamic_silence": False})]
        print("segments", json.dumps([found[0]["value"] for found in ways]), flush=True)


def tell_apart(path: Path) -> dict[str, list[list[float]]]:
    """Return turns (start and end in seconds, speaker) by method."""
    kept = np.load(path)
    number = len({voice for _, _, voice in json.loads(str(kept["said"]))})
    answers = {}
    for given in (None, number):
        parts = [[float(start_s), float(end_s), None] for start_s, end_s in kept["spans"]]
        np.random.seed(0)  # its k-means takes NumPy's global seed
        labels = ClusterBackend()(torch.from_numpy(kept["vectors"]), oracle_num=given)
        found = postprocess(parts, None, labels, kept["vectors"])
        name = "FunASR" if given is None else "FunASR, number given"
        answers[name] = [[float(start_s), float(end_s), int(speaker)] for start_s, end_s, speaker in found]
        sentences = [{"start": 1000 * start_s, "end": 1000 * end_s} for start_s, end_s in kept["segments"]]
        distribute_spk(sentences, found)
        answers[f"{name}, by segment"] = [
            [each["start"] / 1000, each["end"] / 1000, int(each["spk"])] for each in sentences
        ]
    return answers


if __name__ == "__main__":
    if sys.argv[1] == "detect":
        detect(sys.argv[2])
    for name in sys.argv[2:] if sys.argv[1] == "cluster" else ():
        Path(name).with_suffix(".json").write_text(json.dumps(tell_apart(Path(name))))
