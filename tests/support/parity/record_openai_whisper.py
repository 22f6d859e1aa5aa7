"""Run openai-whisper on clips, greedy, in float32: JOB OUT.

Runs in the environment of the reference, without this package. A job is a JSON object {"weights": path of base.pt,
"audio": file of float32 samples at 16 kHz (npz), "languages": {clip: language}, "stages": bool}. The audio is
padded, not the features, as `whisper.decode` expects. OUT, an npz archive, receives for each clip

- the language that is detected, and the tokens of the text without times;
- for each of these tokens and the end: how far its logit exceeds the next best, relative to the range of logits.

With "stages", also

- features (3000, mels), the encoder's rows, and the probability of no speech;
- tokens with times, and the logits before the rules, (steps + 1, vocabulary), with and without times;
- for each word that `whisper.timing.find_alignment` finds: its number of tokens, its start and its end in seconds.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
import whisper
from whisper.audio import HOP_LENGTH, log_mel_spectrogram, pad_or_trim
from whisper.decoding import DecodingOptions, DecodingTask, detect_language
from whisper.timing import find_alignment
from whisper.tokenizer import Tokenizer, get_tokenizer


def margins(logits: torch.Tensor, task: DecodingTask, tokenizer: Tokenizer) -> np.ndarray:
    """Return how far the best of (steps, vocabulary) logits leads after the rules, relative to the whole range."""
    spread = logits.max() - logits.min()
    logits = logits.clone()
    logits[:, list(task._get_suppress_tokens())] = -torch.inf
    logits[0, [*tokenizer.encode(" "), tokenizer.eot]] = -torch.inf
    first, second = logits.topk(2, dim=-1).values.T
    return ((first - second) / spread).numpy()


@torch.no_grad()
def main(job_path: Path, out: Path) -> None:
    job = json.loads(job_path.read_text(encoding="utf-8"))
    model = whisper.load_model(job["weights"], device="cpu").float().eval()
    model.set_alignment_heads(whisper._ALIGNMENT_HEADS["base"])  # a file does not state them
    arrays = {}
    for name, samples in np.load(job["audio"]).items():
        language = job["languages"][name]
        tokenizer = get_tokenizer(True, num_languages=model.num_languages, language=language, task="transcribe")
        mel = log_mel_spectrogram(pad_or_trim(samples))  # (mels, 3000)
        encoded = model.embed_audio(mel[None])
        _, [odds] = detect_language(model, encoded, tokenizer)
        arrays[f"{name}/detected"] = np.array(max(odds, key=odds.get))
        for kind in ("plain", "timed") if job["stages"] else ("plain",):
            options = DecodingOptions(language=language, without_timestamps=kind == "plain", fp16=False)
            task = DecodingTask(model, options)
            [result] = task.run(encoded)
            prompt = list(task.initial_tokens)
            ids = torch.tensor([[*prompt, *result.tokens]])
            logits = model.logits(ids, encoded)[0, len(prompt) - 1 :]
            arrays[f"{name}/{kind}/tokens"] = np.array(result.tokens)
            if job["stages"]:
                arrays |= {f"{name}/{kind}/logits": logits.numpy(), f"{name}/no_speech": result.no_speech_prob}
            if kind == "plain":
                arrays[f"{name}/margins"] = margins(logits, task, tokenizer)
        if job["stages"]:
            arrays |= {f"{name}/features": mel.T.numpy(), f"{name}/encoder": encoded[0].numpy()}
            text = [token for token in arrays[f"{name}/plain/tokens"].tolist() if token < tokenizer.eot]
            words = find_alignment(model, tokenizer, text, mel, len(samples) // HOP_LENGTH)
            arrays[f"{name}/words"] = np.array([[len(each.tokens), each.start, each.end] for each in words])
    np.savez(out, **arrays)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
