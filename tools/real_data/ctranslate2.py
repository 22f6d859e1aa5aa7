"""Read Whisper from CTranslate2's `model.bin`, and give its tensors OpenAI's names.

The format is that of CTranslate2's converter, version 6 (`ctranslate2/specs/model_spec.py`). Little-endian: u32
version, name, u32 revision, u32 count of variables; each has a name, u8 rank, u32 sizes, u8 type, u32 bytes and
its values; then u32 count of aliases, each two names. A name is a u16 length, the text and a zero byte, which the
length counts.
"""

import re
from collections.abc import Iterator, Mapping
from io import BytesIO

import numpy as np

from funasr_cli.errors import ModelError

Arrays = dict[str, np.ndarray]
VERSION, SPEC = 6, "WhisperSpec"
TYPES = {0: "<f4", 1: "<i1", 2: "<i2", 3: "<i4", 4: "<f2"}
# From CTranslate2's modules to OpenAI's; `{n}` is a layer. Stacked matrices are split into the parts in brackets.
NORMS = {
    "{side}/layer_{n}/self_attention/layer_norm": "{side}.blocks.{n}.attn_ln",
    "{side}/layer_{n}/attention/layer_norm": "{side}.blocks.{n}.cross_attn_ln",
    "{side}/layer_{n}/ffn/layer_norm": "{side}.blocks.{n}.mlp_ln",
}
LINEARS = {
    "{side}/layer_{n}/self_attention/linear_0": "{side}.blocks.{n}.attn.[query key value]",
    "{side}/layer_{n}/self_attention/linear_1": "{side}.blocks.{n}.attn.out",
    "{side}/layer_{n}/attention/linear_0": "{side}.blocks.{n}.cross_attn.query",
    "{side}/layer_{n}/attention/linear_1": "{side}.blocks.{n}.cross_attn.[key value]",
    "{side}/layer_{n}/attention/linear_2": "{side}.blocks.{n}.cross_attn.out",
    "{side}/layer_{n}/ffn/linear_0": "{side}.blocks.{n}.mlp.0",
    "{side}/layer_{n}/ffn/linear_1": "{side}.blocks.{n}.mlp.2",
}
SINGLE = {
    "encoder/conv1/weight": "encoder.conv1.weight",
    "encoder/conv1/bias": "encoder.conv1.bias",
    "encoder/conv2/weight": "encoder.conv2.weight",
    "encoder/conv2/bias": "encoder.conv2.bias",
    "encoder/position_encodings/encodings": "encoder.positional_embedding",
    "encoder/layer_norm/gamma": "encoder.ln_post.weight",
    "encoder/layer_norm/beta": "encoder.ln_post.bias",
    "decoder/embeddings/weight": "decoder.token_embedding.weight",
    "decoder/position_encodings/encodings": "decoder.positional_embedding",
    "decoder/layer_norm/gamma": "decoder.ln.weight",
    "decoder/layer_norm/beta": "decoder.ln.bias",
}


def read_variables(data: bytes) -> Arrays:
    """Return the variables of a `model.bin` by name; scalars have no dimensions, aliases are left out.

    Raises:
        ModelError: another format, or the file is damaged.
    """
    file = BytesIO(data)

    def take(size: int) -> bytes:
        if len(found := file.read(size)) < size:
            raise ModelError("model.bin: ends too early", code="model-damaged")
        return found

    def number(size: int) -> int:
        return int.from_bytes(take(size), "little")

    def name() -> str:
        return take(number(2))[:-1].decode()

    if (version := number(4), name()) != (VERSION, SPEC):
        raise ModelError(f"model.bin: version {version} is not {VERSION} of {SPEC}", code="model-unsupported")
    number(4)  # revision
    variables = {}
    for _ in range(number(4)):
        key = name()
        shape = [number(4) for _ in range(number(1))]
        kind = TYPES[number(1)]
        variables[key] = np.frombuffer(take(number(4)), kind).reshape(shape)
    for _ in range(number(4)):
        name(), name()
    if file.tell() != len(data):
        raise ModelError(f"model.bin: {len(data) - file.tell()} bytes too many", code="model-damaged")
    return variables


def openai_tensors(variables: Mapping[str, np.ndarray]) -> Arrays:
    """Return the tensors under OpenAI's names, without the biases of keys, which CTranslate2 adds as zeros.

    Raises:
        ModelError: a bias of keys is not zero.
    """
    tensors = {new: variables[old] for old, new in SINGLE.items()}
    for side in ("encoder", "decoder"):
        layers = {found[1] for name in variables if (found := re.match(rf"{side}/layer_(\d+)/", name))}
        for n in sorted(layers, key=int):
            for old, new in NORMS.items():
                if (module := old.format(side=side, n=n)) + "/gamma" in variables:
                    tensors[new.format(side=side, n=n) + ".weight"] = variables[f"{module}/gamma"]
                    tensors[new.format(side=side, n=n) + ".bias"] = variables[f"{module}/beta"]
            for old, new in LINEARS.items():
                if (module := old.format(side=side, n=n)) + "/weight" in variables:
                    for kind in ("weight", "bias"):
                        tensors |= _split(new.format(side=side, n=n), kind, variables[f"{module}/{kind}"])
    return tensors


def _split(name: str, kind: str, value: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the parts of a stacked tensor: (parts * width, ...) to (width, ...) each."""
    prefix, _, parts = name.rstrip("]").partition("[")
    names = parts.split() if parts else [""]
    for part, array in zip(names, np.split(value, len(names)), strict=True):
        if (part, kind) == ("key", "bias"):
            if array.any():
                raise ModelError(f"{prefix}key.bias: is not zero", code="model-damaged")
            continue
        yield f"{prefix}{part}.{kind}", array


def dimensions(tensors: Mapping[str, np.ndarray], heads: int) -> dict[str, int]:
    """Return OpenAI's `dims`; encoder and decoder have the same number of heads."""
    width, mels, _ = tensors["encoder.conv1.weight"].shape
    vocabulary = len(tensors["decoder.token_embedding.weight"])
    positions, text_width = tensors["decoder.positional_embedding"].shape

    def layers(side: str) -> int:
        return sum(bool(re.fullmatch(rf"{side}\.blocks\.\d+\.mlp_ln\.weight", name)) for name in tensors)

    return {
        "n_mels": mels,
        "n_audio_ctx": len(tensors["encoder.positional_embedding"]),
        "n_audio_state": width,
        "n_audio_head": heads,
        "n_audio_layer": layers("encoder"),
        "n_vocab": vocabulary,
        "n_text_ctx": positions,
        "n_text_state": text_width,
        "n_text_head": heads,
        "n_text_layer": layers("decoder"),
    }
