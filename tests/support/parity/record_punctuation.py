"""Run FunASR's own CT-Transformer on texts: JOB OUT.

Runs in the environment of the reference, without this package. A job is a JSON list of {"checkpoint": folder,
"texts": [...], "rows": [[token, ...], ...]}. OUT.json receives for each checkpoint and text {"ids", "text",
"tokens", "margin", "eps"}: the label after each token, the text as FunASR writes it, its tokens, and the smallest
difference between the two highest logits of any token that it read; and "eps": the constants of all layer norms,
which change these results too little to be noticed. OUT.npz receives the logits of each row of
tokens, read as a whole, as "{checkpoint's number}/{row}".
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from funasr import AutoModel
from funasr.models.ct_transformer.utils import split_words


def answers(checkpoint: str, texts: list[str], rows: list[list[str]]) -> tuple[list[dict[str, Any]], list[Any]]:
    """Return the answer for each text, and the logits of each row."""
    auto = AutoModel(
        model=checkpoint, device="cpu", ncpu=1, disable_update=True, disable_pbar=True, log_level="ERROR"
    )
    stored = torch.load(Path(checkpoint) / "model.pt", weights_only=True)
    loaded = auto.model.state_dict()  # FunASR only prints a message when tensors are missing
    if loaded.keys() != stored.keys() or not all(torch.equal(loaded[name], stored[name]) for name in stored):
        raise AssertionError("not loaded as stored")
    margins: list[float] = []
    forward, encode = auto.model.punc_forward, auto.kwargs["tokenizer"].encode

    def recorded(*given: torch.Tensor, **named: torch.Tensor) -> tuple[torch.Tensor, None]:
        logits, _ = forward(*given, **named)
        best = logits.topk(2).values
        margins.append(float((best[..., 0] - best[..., 1]).min()))
        return logits, None

    logits = [forward(torch.tensor([encode(list(row))]), torch.tensor([len(row)]))[0][0].numpy() for row in rows]
    auto.model.punc_forward = recorded
    eps = sorted({module.eps for module in auto.model.modules() if isinstance(module, torch.nn.LayerNorm)})
    found = []
    for text in texts:
        margins.clear()
        [answer] = auto.generate(input=text)
        tokens = split_words(text, jieba_usr_dict=auto.model.jieba_usr_dict)
        ids = answer["punc_array"].tolist()
        found.append({"ids": ids, "text": answer["text"], "tokens": tokens, "margin": min(margins), "eps": eps})
    return found, logits


def main() -> None:
    jobs, out = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2])
    torch.set_num_threads(1)
    with torch.no_grad():
        results = [answers(**job) for job in jobs]
    arrays = {f"{case}/{row}": array for case, (_, rows) in enumerate(results) for row, array in enumerate(rows)}
    np.savez(out.with_suffix(".npz"), **arrays)
    content = json.dumps([found for found, _ in results], ensure_ascii=False)
    out.with_suffix(".json").write_text(content, encoding="utf-8")


main()
