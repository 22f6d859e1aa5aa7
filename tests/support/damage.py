"""Ways to damage a checkpoint. Each function returns a change to apply to a folder."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file, save_file
from support.layouts import Tensors
from support.small import edit_json, edit_tensors
from tokenizers import Tokenizer, models

Change = Callable[[Path], Any]
WEIGHTS, INDEX, CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"
SHARD = "model-{}-of-00003.safetensors".format


def put(name: str, content: bytes) -> Change:
    return lambda folder: (folder / name).write_bytes(content)


def remove(name: str) -> Change:
    return lambda folder: (folder / name).unlink()


def cut(name: str, size_bytes: int) -> Change:
    """Keep the first `size_bytes` bytes of a file; a negative number removes that many from its end."""
    return lambda folder: os.truncate(folder / name, size_bytes % (folder / name).stat().st_size)


def flip(name: str, position: int, bit: int = 0) -> Change:
    """Flip one bit of a file."""

    def change(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[position] ^= 1 << bit
        (folder / name).write_bytes(content)

    return change


def link(name: str, target: str) -> Change:
    """Replace a file or folder by a symlink. The original moves to the target unless something exists there."""

    def change(folder: Path) -> None:
        path = folder / name
        if not (path.parent / target).exists():
            path.rename(path.parent / target)
        elif path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
        path.symlink_to(target)

    return change


def replace(name: str, make: Callable[[Path], None]) -> Change:
    """Replace a file by something else, such as a folder or a pipe."""
    return lambda folder: ((folder / name).unlink(), make(folder / name))


def state(**entries: Any) -> Change:
    """Set entries of ``config.json``, nested ones as ``audio_config__hidden_size``; None removes an entry."""
    return lambda folder: edit_json(folder / CONFIG, lambda content: _set_all(content, entries))


def state_yaml(**entries: Any) -> Change:
    """Set entries of ``config.yaml`` in the same way."""

    def change(folder: Path) -> None:
        content = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        _set_all(content, entries)
        (folder / "config.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")

    return change


def _set_all(content: dict[str, Any], entries: dict[str, Any]) -> None:
    for path, value in entries.items():
        *outer, last = path.split("__")
        place = content
        for key in outer:
            place = place[key]
        if value is None:
            place.pop(last, None)
        else:
            place[last] = value


def tensors(change: Callable[[Tensors], Any], name: str = WEIGHTS) -> Change:
    """Change the tensors of a safetensors file, which stays valid, or of a ``model.pt``."""

    def apply(folder: Path) -> None:
        if name == "model.pt":
            return edit_tensors(folder, change)
        content = load_file(folder / name)
        change(content)
        return save_file({key: value.contiguous() for key, value in content.items()}, folder / name)

    return apply


def tensor(key: str, change: Callable[[torch.Tensor], torch.Tensor], name: str = WEIGHTS) -> Change:
    return tensors(lambda content: content.update({key: change(content[key])}), name)


def first_value(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a function that replaces the first number of a tensor."""

    def change(values: torch.Tensor) -> torch.Tensor:
        values = values.clone()
        values.view(-1)[0] = value
        return values

    return change


def header(change: Callable[[dict[str, Any]], Any], name: str = WEIGHTS) -> Change:
    """Change the header of a safetensors file; the values that follow it do not move."""

    def apply(folder: Path) -> None:
        content = (folder / name).read_bytes()
        length = int.from_bytes(content[:8], "little")
        described = json.loads(content[8 : 8 + length])
        change(described)
        encoded = json.dumps(described).encode()
        (folder / name).write_bytes(len(encoded).to_bytes(8, "little") + encoded + content[8 + length :])

    return apply


def tokenizer(name: str, model: models.Model) -> Change:
    return lambda folder: Tokenizer(model).save(str(folder / name))


def two_tokens(name: str) -> Change:
    """Write a tokenizer like Qwen's, without the tokens that the prompt needs."""
    return tokenizer(name, models.BPE({"a": 0, "b": 1}, []))


def add_lora(*names: str) -> Change:
    """Add adapter tensors for the decoder's q and v, under names such as ``{}.lora_A``."""

    def change(found: Tensors) -> None:
        for weight in [name for name in found if name.endswith(("q_proj.weight", "v_proj.weight"))]:
            found |= {name.format(weight.removesuffix(".weight")): torch.zeros(4, 4) for name in names}

    return tensors(change, "model.pt")


def index(change: Callable[[dict[str, str]], Any]) -> Change:
    """Change the index, which maps each tensor to its shard."""
    return lambda folder: edit_json(folder / INDEX, lambda content: change(content["weight_map"]))


def pickle(content: Any, **options: bool) -> Change:
    return lambda folder: torch.save(content, folder / "model.pt", **options)


class Call:
    """A call that is executed when the pickle is loaded."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.function, self.arguments
