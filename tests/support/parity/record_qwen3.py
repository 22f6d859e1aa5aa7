"""Run transformers' own Qwen3 on prompts, and its logits processors on random logits: JOB OUT.

Runs in the environment of the reference, without this package. A job is {"checkpoints": [folder, ...],
"messages": [[system or null, message], ...], "tokens": number, "seed", "shape": [rows, vocabulary],
"sampling": [{"temperature", "top_k", "top_p"}, ...]}. OUT.json receives for each checkpoint and message {"prompt",
"ids", "written"}: the text of the chat template with thinking switched off, its tokens, and those that are written
greedily. OUT.npz receives random tokens as "{checkpoint}/{message}/forced", their logits after the prompt as
"{checkpoint}/{message}/logits", and random logits after each sampling's processors as "sampling/{number}".
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

Messages = list[tuple[str | None, str]]


def answers(folder: str, messages: Messages, tokens: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the answer to each message, and its arrays."""
    model, loading = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    if problems := [what for what in loading.values() if what]:  # transformers only warns
        raise AssertionError(f"not loaded as stored: {problems}")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found, arrays = [], []
    for system, message in messages:
        turns = [{"role": "system", "content": system}] if system is not None else []
        turns.append({"role": "user", "content": message})
        prompt = tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        ids = tokenizer.encode(prompt, add_special_tokens=False)
        given = torch.tensor([ids])
        written = model.generate(
            given, attention_mask=torch.ones_like(given), do_sample=False, max_new_tokens=tokens
        )
        forced = torch.randint(
            model.config.vocab_size, (tokens,), generator=torch.Generator().manual_seed(len(ids))
        )
        logits = model(torch.cat([given[0], forced[:-1]])[None]).logits[0, -tokens:]
        found.append({"prompt": prompt, "ids": ids, "written": written[0, len(ids) :].tolist()})
        arrays.append({"logits": logits.numpy(), "forced": forced.numpy()})
    return found, arrays


def processed(logits: torch.Tensor, temperature: float, top_k: int | None, top_p: float | None) -> np.ndarray:
    """Return logits (rows, vocabulary) after transformers' processors, in its order."""
    processors = [TemperatureLogitsWarper(temperature)]
    processors += [TopKLogitsWarper(top_k)] if top_k else []
    processors += [TopPLogitsWarper(top_p)] if top_p else []
    for processor in processors:
        logits = processor(None, logits)
    return logits.numpy()


def main() -> None:
    job, out = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2])
    torch.set_num_threads(1)
    arrays = {}
    with torch.no_grad():
        results = [answers(folder, job["messages"], job["tokens"]) for folder in job["checkpoints"]]
    for case, (_, rows) in enumerate(results):
        for number, row in enumerate(rows):
            arrays |= {f"{case}/{number}/{name}": values for name, values in row.items()}
    logits = torch.tensor(np.random.default_rng(job["seed"]).standard_normal(job["shape"]).astype(np.float32) * 3)
    for number, sampling in enumerate(job["sampling"]):
        arrays[f"sampling/{number}"] = processed(logits, **sampling)
    np.savez(out.with_suffix(".npz"), **arrays)
    out.with_suffix(".json").write_text(json.dumps([found for found, _ in results]), encoding="utf-8")


main()
