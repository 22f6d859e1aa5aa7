"""Run Transformers' Whisper on a checkpoint: JOB OUT.

Runs in the environment of the reference, without this package. A job is a JSON object {"checkpoint": folder,
"audio": file of float32 samples at 16 kHz (npz), "forced": {clip: token ids}, "prompt": token ids}. OUT, an npz
archive, receives for each clip its features, the encoder's rows, the logits after the prompt and after each forced
token, and the tokens of greedy decoding after the prompt ("steps" of them, if the job has this number).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration

STEPS = 24


@torch.no_grad()
def main(job_path: Path, out: Path) -> None:
    job = json.loads(job_path.read_text(encoding="utf-8"))
    model = WhisperForConditionalGeneration.from_pretrained(job["checkpoint"], dtype=torch.float32).eval()
    extract = WhisperFeatureExtractor(feature_size=model.config.num_mel_bins)
    arrays = {}
    for name, samples in np.load(job["audio"]).items():
        features = extract(samples, sampling_rate=16000, return_tensors="pt").input_features  # (1, mels, 3000)
        # The same from NumPy in float64: torch computes its spectrum in float32.
        exact = extract._np_extract_fbank_features([np.pad(samples, (0, 480_000 - len(samples)))], "cpu")[0]
        encoded = model.model.encoder(features).last_hidden_state
        ids = [*job["prompt"], *job["forced"][name]]
        logits = model(encoder_outputs=(encoded,), decoder_input_ids=torch.tensor([ids])).logits[0]
        written = list(job["prompt"])
        for _ in range(job.get("steps", STEPS)):
            after = model(encoder_outputs=(encoded,), decoder_input_ids=torch.tensor([written])).logits[0, -1]
            after[job["never"]] = -torch.inf
            if len(written) == len(job["prompt"]):
                after[job["not_first"]] = -torch.inf
            written.append(int(after.argmax()))
        arrays |= {
            f"{name}/features": features[0].T.numpy(),
            f"{name}/exact_features": exact.T,
            f"{name}/encoder": encoded[0].numpy(),
            f"{name}/logits": logits[len(job["prompt"]) - 1 :].numpy(),
            f"{name}/written": np.array(written[len(job["prompt"]) :]),
        }
    np.savez(out, **arrays)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
