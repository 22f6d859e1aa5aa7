"""Run FunASR-Qwen4B's networks as FunASR, PyTorch and Transformers have them: JOB OUT.

Runs in the environment of the reference, without this package. A job is a JSON object {"encoder": safetensors by
upstream's names, "sizes": of the encoder, "adaptor": state dict, "heads": of the adaptor, "llm": folder,
"prompts": {task: [before, after]}, "features": file of features (npz), "forced": {clip: token ids}}. OUT, an npz
file, has for each clip the outputs of encoder and adaptor; for each task, the prompt's token ids; for each clip
and task, logits after the prompt and after each forced token.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from funasr.models.sense_voice.model import SenseVoiceEncoderSmall
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer


class Adaptor(nn.Module):
    """Composed of PyTorch's own modules, with their defaults."""

    def __init__(self, state: dict[str, torch.Tensor], heads: int):
        super().__init__()
        width, input_dim = state["input_proj.weight"].shape
        hidden = state["transformer.layers.0.linear1.weight"].shape[0]
        layers = sum(name.endswith("norm1.weight") for name in state)
        layer = nn.TransformerEncoderLayer(width, heads, hidden, dropout=0.1, activation="gelu", batch_first=True)
        self.input_proj, self.transformer = nn.Linear(input_dim, width), nn.TransformerEncoder(layer, layers)
        self.output_proj = nn.Linear(width, output_dim := state["norm.weight"].shape[0])
        self.norm = nn.LayerNorm(output_dim)
        self.load_state_dict(state)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.norm(self.output_proj(self.transformer(self.input_proj(rows))))


@torch.no_grad()
def main(job_path: Path, out: Path) -> None:
    torch.set_num_threads(1)
    job = json.loads(job_path.read_text(encoding="utf-8"))
    encoder = SenseVoiceEncoderSmall(**job["sizes"]).eval()
    state = load_file(job["encoder"])
    encoder.load_state_dict({name.removeprefix("encoder."): values for name, values in state.items()})
    adaptor = Adaptor(torch.load(job["adaptor"], weights_only=True), job["heads"]).eval()
    llm = AutoModelForCausalLM.from_pretrained(job["llm"], dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(job["llm"])
    arrays: dict[str, np.ndarray] = {}
    prompts = {}
    for task, texts in job["prompts"].items():
        ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        arrays |= {f"{task}/before": np.array(ids[0], int), f"{task}/after": np.array(ids[1], int)}
        prompts[task] = [llm.model.embed_tokens(torch.tensor([part], dtype=torch.long)) for part in ids]
    for name, features in np.load(job["features"]).items():
        rows = torch.from_numpy(features)[None] / job["sizes"]["output_size"] ** 0.5  # FunASR multiplies by this
        encoded = encoder(rows, torch.tensor([rows.shape[1]]))[0]
        adapted = adaptor(encoded)
        arrays |= {f"{name}/encoder": encoded[0].numpy(), f"{name}/adaptor": adapted[0].numpy()}
        for task, (before, after) in prompts.items():
            prompt = torch.cat([before, adapted, after], dim=1)
            forced = llm.model.embed_tokens(torch.tensor([job["forced"][name]]))
            logits = llm(inputs_embeds=torch.cat([prompt, forced], dim=1)).logits[0]
            arrays[f"{name}/{task}/logits"] = logits[prompt.shape[1] - 1 :].numpy()
    np.savez(out, **arrays)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
