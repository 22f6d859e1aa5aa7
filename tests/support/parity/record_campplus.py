"""Run FunASR's own CAM++ on clips: JOB OUT.

Runs in the environment of the reference, without this package. A job is {"weights", "folder", "clips"}:
"random" or a folder with real weights; the folder to write in FunASR's layout; and an archive of arrays (clips,
samples) at 16 kHz. OUT.npz receives the embeddings (clips, width) of each array.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from funasr import AutoModel
from funasr.models.campplus.model import CAMPPlus

WEIGHTS = "campplus_cn_common.bin"
CONF: dict[str, Any] = {
    "feat_dim": 80, "embedding_size": 192, "growth_rate": 32, "bn_size": 4, "init_channels": 128,
    "config_str": "batchnorm-relu", "memory_efficient": True, "output_level": "segment",
}  # fmt: skip


def random_state() -> dict[str, torch.Tensor]:
    """Return random weights with plausible statistics of the batch norms."""
    torch.manual_seed(0)
    state = CAMPPlus(**CONF).state_dict()
    for name, tensor in state.items():
        if name.endswith("running_mean"):
            state[name] = torch.randn_like(tensor) * 0.1
        elif name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight")):
            state[name] = torch.rand_like(tensor) + 0.5
    return state


def main() -> None:
    """Write the checkpoint, load it with FunASR, and embed all clips, one by one."""
    torch.set_num_threads(1)
    job, out = json.loads(Path(sys.argv[1]).read_text()), sys.argv[2]
    folder = Path(job["folder"])
    folder.mkdir()
    if job["weights"] == "random":
        state = random_state()
    else:
        [path] = Path(job["weights"]).glob("campplus_*")
        state = torch.load(path, map_location="cpu", weights_only=True)
    torch.save(state, folder / WEIGHTS)
    (folder / "config.yaml").write_text(json.dumps({"model": "CAMPPlus", "model_conf": CONF}))
    files = {"init_param": WEIGHTS, "config": "config.yaml"}
    (folder / "configuration.json").write_text(json.dumps({"framework": "pytorch", "file_path_metas": files}))
    auto = AutoModel(model=str(folder), device="cpu", ncpu=1, disable_update=True, disable_pbar=True)
    loaded = auto.model.state_dict()
    if not all(torch.equal(loaded[name], tensor) for name, tensor in state.items()):
        raise AssertionError("not loaded as stored")

    def embed(clip: np.ndarray) -> np.ndarray:
        return auto.generate(input=torch.from_numpy(clip))[0]["spk_embedding"][0].detach().numpy()

    clips = np.load(job["clips"])
    np.savez(out, **{name: np.stack([embed(clip) for clip in clips[name]]) for name in clips.files})


if __name__ == "__main__":
    main()
