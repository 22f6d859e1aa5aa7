"""Run openai-whisper on clips, greedy, in float32: JOB OUT.

Runs in the environment of the reference, without this package. A job is a JSON object {"weights": path of base.pt,
"audio": file of float32 samples at 16 kHz (npz), "languages": {clip: language}}. The audio is padded, not the
features, as `whisper.decode` expects. OUT, an npz archive, receives for each clip

- features (3000, mels) and the encoder's rows;
- the language that is detected, and the probabilities of all languages (in the order of tokens) and of no speech;
- tokens with and without times, each with the logits before the rules, (steps + 1, vocabulary);
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
from whisper.tokenizer import get_tokenizer


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
        arrays |= {
            f"{name}/features": mel.T.numpy(),
            f"{name}/encoder": encoded[0].numpy(),
            f"{name}/detected": np.array(max(odds, key=odds.get)),
            f"{name}/odds": np.array([odds[code] for code in tokenizer.all_language_codes]),
        }
        for kind in ("plain", "timed"):
            options = DecodingOptions(language=language, without_timestamps=kind == "plain", fp16=False)
            task = DecodingTask(model, options)
            [result] = task.run(encoded)
            prompt = list(task.initial_tokens)
            ids = torch.tensor([[*prompt, *result.tokens]])
            arrays |= {
                f"{name}/{kind}/tokens": np.array(result.tokens),
                f"{name}/{kind}/logits": model.logits(ids, encoded)[0, len(prompt) - 1 :].numpy(),
                f"{name}/no_speech": np.array(result.no_speech_prob),
            }
        text = [token for token in arrays[f"{name}/plain/tokens"].tolist() if token < tokenizer.eot]
        words = find_alignment(model, tokenizer, text, mel, len(samples) // HOP_LENGTH)
        arrays[f"{name}/words"] = np.array([[len(each.tokens), each.start, each.end] for each in words])
    np.savez(out, **arrays)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
