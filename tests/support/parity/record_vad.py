"""Run FunASR's FSMN-VAD on recordings and on made-up probabilities. Runs in the reference's environment.

    python record_vad.py fsmn_vad.safetensors recordings.npz job.json OUT

FunASR's own loader reads the weights, from a folder that is written here in its layout. Results are in
``OUT/segments.json`` and ``OUT/silence.npz``.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
import yaml
from funasr import AutoModel
from safetensors.torch import load_file

MODEL_CONF = {  # of the release
    "sample_rate": 16000, "detect_mode": 1, "snr_mode": 0, "max_end_silence_time": 800,
    "max_start_silence_time": 3000,
    "do_start_point_detection": True, "do_end_point_detection": True, "window_size_ms": 200,
    "sil_to_speech_time_thres": 150, "speech_to_sil_time_thres": 150, "speech_2_noise_ratio": 1.0, "do_extend": 1,
    "lookback_time_start_point": 200, "lookahead_time_end_point": 100, "max_single_segment_time": 60000,
    "snr_thres": -100.0, "noise_frame_num_used_for_snr": 100, "decibel_thres": -100.0, "speech_noise_thres": 0.6,
    "fe_prior_thres": 0.0001, "silence_pdf_num": 1, "sil_pdf_ids": [0], "speech_noise_thresh_low": -0.1,
    "speech_noise_thresh_high": 0.3, "output_frame_probs": False, "frame_in_ms": 10, "frame_length_ms": 25,
}  # fmt: skip
CONFIG = {
    "model": "FsmnVADStreaming",
    "model_conf": MODEL_CONF,
    "encoder": "FSMN",
    "encoder_conf": {
        "input_dim": 400, "input_affine_dim": 140, "fsmn_layers": 4, "linear_dim": 250, "proj_dim": 128,
        "lorder": 20, "rorder": 0, "lstride": 1, "rstride": 0, "output_affine_dim": 140, "output_dim": 248,
    },
    "frontend": "WavFrontendOnline",
    "frontend_conf": {
        "fs": 16000, "window": "hamming", "n_mels": 80, "frame_length": 25, "frame_shift": 10, "dither": 0.0,
        "lfr_m": 5, "lfr_n": 1, "cmvn_file": "am.mvn",
    },
}  # fmt: skip
CMVN = """<Nnet>
<Splice> 400 400
[ 0 ]
<AddShift> 400 400
<LearnRateCoef> 0 [ {shift} ]
<Rescale> 400 400
<LearnRateCoef> 0 [ {scale} ]
</Nnet>
"""


def load(weights: Path, folder: Path) -> AutoModel:
    """Load FunASR's model from the bundled weights."""
    tensors = load_file(weights)
    numbers = {
        name: " ".join(map(repr, map(float, tensors.pop(f"cmvn.{name}").tolist()))) for name in ("shift", "scale")
    }
    folder.mkdir()
    (folder / "am.mvn").write_text(CMVN.format(**numbers))
    conf = CONFIG["frontend_conf"] | {"cmvn_file": str(folder / "am.mvn")}
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG | {"frontend_conf": conf}))
    torch.save(tensors, folder / "model.pt")
    return AutoModel(model=str(folder), device="cpu", disable_update=True, disable_pbar=True, log_level="ERROR")


def in_pieces(auto: AutoModel, samples: torch.Tensor, piece_ms: int, **options: object) -> list[list[int]]:
    """Return segments as FunASR finds them in a stream, where it reports starts and ends separately."""
    found = []
    told = auto.generate(input=samples, cache={}, is_final=True, chunk_size=piece_ms, **options)[0]["value"]
    for start, end in told:
        if start >= 0:
            found.append([start, -1])
        if end >= 0:
            found[-1][1] = end
    return found


def scripted(auto: AutoModel, silence: list[float], **options: object) -> list[list[int]]:
    """Return segments of a recording of silence in which the network gives these probabilities."""
    seen, network = 0, auto.model.encoder.forward

    def forward(rows: torch.Tensor, cache: object = None) -> torch.Tensor:
        nonlocal seen
        seen += rows.shape[1]
        return torch.tensor(silence[seen - rows.shape[1] : seen], dtype=torch.float64)[None, :, None]

    auto.model.encoder.forward = forward
    samples = torch.zeros((len(silence) - 1) * 160 + 400)
    found = auto.generate(input=samples, cache={}, **options)[0]["value"]
    auto.model.encoder.forward = network
    assert seen == len(silence)
    return found


def main() -> None:
    """Run all jobs."""
    weights, recordings, job, out = map(Path, sys.argv[1:])
    torch.set_num_threads(1)
    auto = load(weights, out / "model")
    segments, silence = {}, {}
    jobs = json.loads(job.read_text())
    for name, samples in np.load(recordings).items():
        whole = torch.from_numpy(samples)
        rows = auto.kwargs["frontend"](whole[None], torch.tensor([len(samples)]), cache={}, is_final=True)[0]
        with torch.no_grad():
            silence[name] = auto.model.encoder(rows, cache={})[0, :, 0].numpy()
        for rules, options in jobs["rules"].items():
            piece_ms = options.pop("piece_ms", None)
            if piece_ms is None:
                segments[f"{name}, {rules}"] = auto.generate(input=whole, cache={}, **options)[0]["value"]
            elif name in jobs["short"]:
                segments[f"{name}, {rules}"] = in_pieces(auto, whole, piece_ms, **options)
            options |= {} if piece_ms is None else {"piece_ms": piece_ms}
    for number, case in enumerate(jobs["scripts"]):
        auto.model.vad_opts.speech_noise_thres = case["threshold"]
        auto.model.vad_opts.max_single_segment_time = case["longest_ms"]
        auto.model.vad_opts.max_end_silence_time = case["pause_ms"]
        segments[f"script {number}"] = scripted(auto, case["silence"], **case["options"])
    (out / "segments.json").write_text(json.dumps(segments))
    np.savez(out / "silence.npz", **silence)


if __name__ == "__main__":
    main()
