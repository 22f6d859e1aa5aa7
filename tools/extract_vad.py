"""Extract ``funasr_cli/audio/silero_vad.safetensors`` and its licence notice from Silero's wheel.

Needs numpy, safetensors and ``onnx`` (1.23.2 was used), which is not a dependency of this project.

    pip download --no-deps silero-vad==6.2.3
    python tools/extract_vad.py silero_vad-6.2.3-py3-none-any.whl funasr_cli/audio

The graph's initializers are written unchanged: names, shapes, float32. Do not use the wheel's own
``silero_vad_16k.safetensors``: it holds other weights.
"""

import hashlib
import sys
import zipfile
from pathlib import Path

import onnx
from onnx import numpy_helper
from safetensors.numpy import save

WHEEL_SHA256 = "7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8"
GRAPH = "silero_vad/data/silero_vad_16k_op15.onnx"
LICENSE = "silero_vad-6.2.3.dist-info/licenses/LICENSE"


def extract(wheel: Path, folder: Path) -> None:
    """Write the weights and the licence notice of `wheel` to `folder`."""
    assert hashlib.sha256(wheel.read_bytes()).hexdigest() == WHEEL_SHA256
    with zipfile.ZipFile(wheel) as files:
        graph = onnx.load_from_string(files.read(GRAPH)).graph
        notice = files.read(LICENSE)
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    metadata = {"source": f"silero-vad 6.2.3, {GRAPH}; MIT, Copyright (c) 2020-present Silero Team"}
    (folder / "silero_vad.safetensors").write_bytes(save(tensors, metadata))
    (folder / "silero_vad.LICENSE").write_bytes(notice)


if __name__ == "__main__":
    extract(Path(sys.argv[1]), Path(sys.argv[2]))
