"""Print FunASR's turns, as JSON, for mixtures of tools.accuracy.speakers: FILE.npz ...

One line a file: turns when the number of speakers is found, and when it is given. Runs in the environment of the
reference, without this package.
"""

import json
import sys

import numpy as np
import torch
from funasr.models.campplus.cluster_backend import ClusterBackend
from funasr.models.campplus.utils import postprocess

for path in sys.argv[1:]:
    kept = np.load(path)
    number = len({voice for _, _, voice in json.loads(str(kept["said"]))})
    answers = []
    for given in (None, number):
        parts = [[float(start_s), float(end_s), None] for start_s, end_s in kept["spans"]]
        np.random.seed(0)  # its k-means takes NumPy's global seed
        labels = ClusterBackend()(torch.from_numpy(kept["vectors"]), oracle_num=given)
        found = postprocess(parts, None, labels, kept["vectors"])
        answers.append([[float(start_s), float(end_s), int(speaker)] for start_s, end_s, speaker in found])
    print("turns", json.dumps(answers))
