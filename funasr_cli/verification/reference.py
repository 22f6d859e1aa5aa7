"""Run FunASR's own PyTorch Fun-ASR-Nano on a checkpoint and record every stage of it.

Runs in the reference environment (funasr, torch, transformers, kaldi-native-fbank; not MLX):

    python funasr_cli/verification/reference.py job.json out

`job.json`: {"checkpoint": folder, "threads": 2, "cases": [{"name": ..., "audio": path, "language": "中文" or
null, "hotwords": [...], "itn": true, "max_tokens": 64, "forced_ids": [...] (optional)}], "batches": [{"name":
..., "audio": [paths], "language": ..., ...}]}. Only `checkpoint`, and `name` and `audio` of a case, are required.

Writes `out.json` (texts, prompt pieces, lengths) and `out.npz` (arrays `{case}/{array}`): samples, features,
encoder, adaptor, audio_rows, prompt_ids, inputs_embeds, forced_ids, forced_logits, generated_ids and, with CTC
tensors in the checkpoint, ctc_decoder and ctc_log_probs.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import kaldi_native_fbank as knf
import numpy as np
import torch
import yaml
from funasr import AutoModel
from funasr.utils.load_utils import extract_fbank, load_audio_text_image_video
from tokenizers import Tokenizer

DEFAULTS = {"language": None, "hotwords": [], "itn": True, "max_tokens": 64, "forced_ids": None}
NO_SAMPLING = {"do_sample": False}
TOKENIZER_PROBES = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n语音转写成中文：",
    "**上下文信息：**\n\n\n热词列表：[Kennedy, 滨海]\n<think>\n\n</think>\n\n",
    "  It's 2024, I'LL \t x\r\n\r\n e\u0301 \u212b １2٣ 한국어 ไทย हिन्दी 😀\u200d /sil",
)


class RecordingTokenizer:
    """A tokenizer that also keeps the strings it was asked to encode."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.encoded: list[str] = []

    def encode(self, text: str) -> list[int]:
        """As the tokenizer does."""
        self.encoded.append(text)
        return self._tokenizer.encode(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)


class Reference:
    """The loaded upstream model, asked one case at a time."""

    def __init__(self, checkpoint: Path, threads: int) -> None:
        config = yaml.safe_load((checkpoint / "config.yaml").read_text(encoding="utf-8"))
        llm_path = str(checkpoint / config["llm_conf"]["init_param_path"])
        self.auto = AutoModel(
            model=str(checkpoint),
            device="cpu",
            ncpu=threads,
            disable_update=True,
            disable_pbar=True,
            log_level="ERROR",
            frontend_conf={**config["frontend_conf"], "dither": 0.0},
            llm_conf={"hub": "hf", "init_param_path": llm_path, "llm_dtype": "fp32"},
            tokenizer_conf={"init_param_path": llm_path},
        )
        self.model = self.auto.model
        self.frontend = self.auto.kwargs["frontend"]
        self.tokenizer = self.auto.kwargs["tokenizer"]
        self._check_loaded(checkpoint / "model.pt")
        self._check_tokenizer(f"{llm_path}/tokenizer.json")
        self._generate = self.model.llm.generate
        self._generated: list[torch.Tensor] = []
        self.model.llm.generate = self._recording_generate

    def run(self, case: dict[str, Any]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Every stage of one case: what goes into the JSON, and the arrays."""
        samples = load_audio_text_image_video(case["audio"], fs=self.frontend.fs)  # (n,), 16 kHz
        features, lengths = extract_fbank(samples, frontend=self.frontend, is_final=True)  # (1, rows, 560)
        tokenizer = RecordingTokenizer(self.tokenizer)
        prompt = self.model.get_prompt(case["hotwords"], case["language"], case["itn"])
        kwargs = {k: v for k, v in self.auto.kwargs.items() if k not in ("tokenizer", "frontend")}
        embeds, _, batch, prompt_ids, stages = self.model.inference_prepare(
            [self.model.generate_chatml(prompt, case["audio"])], None, None, tokenizer, self.frontend, **kwargs
        )
        begin, count = int(batch["fbank_beg"]), int(batch["fake_token_len"])
        audio_rows = embeds[0, begin : begin + count]
        if not torch.equal(audio_rows, stages["audio_adaptor_out"][0, :count]):
            raise AssertionError("the prompt's audio rows are not the adaptor's first rows")
        forced = case["forced_ids"] or self._greedy_past_eos(embeds, case["max_tokens"])
        arrays = {
            "samples": samples,
            "features": features[0],
            "encoder": stages["encoder_out"][0],
            "adaptor": stages["audio_adaptor_out"][0],
            "audio_rows": audio_rows,
            "prompt_ids": prompt_ids[0],
            "inputs_embeds": embeds[0],
            "forced_ids": torch.tensor(forced),
            "forced_logits": self._forced_logits(embeds, forced),
        }
        report = {
            "prompt_pieces": tokenizer.encoded[:-1],  # the last string is the training target
            "audio_begin": begin,
            "audio_tokens": count,
            "lfr_rows": int(lengths[0]),
            "fbank_difference": self._fbank_difference(samples.numpy(), features[0].numpy()),
        }
        text, arrays["generated_ids"] = self._transcribe([case["audio"]], case)
        report["text"] = text[0]
        report["generated_text_raw"] = self.tokenizer.decode(arrays["generated_ids"][0])
        arrays["generated_ids"] = arrays["generated_ids"][0]
        if self.model.ctc_decoder is not None:
            decoded, _ = self.model.ctc_decoder(stages["encoder_out"], stages["encoder_out_lens"])
            arrays["ctc_decoder"], log_probs = decoded[0], self.model.ctc.log_softmax(decoded)[0]
            arrays["ctc_log_probs"] = log_probs
            path = torch.unique_consecutive(log_probs.argmax(-1))
            report["ctc_ids"] = path[path != self.model.blank_id].tolist()
            report["ctc_text"] = self.model.ctc_tokenizer.decode(report["ctc_ids"])
            report["ctc_text_ids"] = self.model.ctc_tokenizer.encode(report["ctc_text"])
        return report, {name: value.numpy() for name, value in arrays.items()}

    def run_batch(self, batch: dict[str, Any]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Decode several files in one left-padded batch, as `generate(batch_size=n)` does."""
        texts, ids = self._transcribe(batch["audio"], batch)
        return {"texts": texts}, {"generated_ids": ids.numpy()}

    def _transcribe(self, audio: list[str], case: dict[str, Any]) -> tuple[list[str], torch.Tensor]:
        """Texts of upstream's `generate()` and the ids it decoded. Its CTC part needs torchaudio: left out."""
        ctc_decoder, self.model.ctc_decoder = self.model.ctc_decoder, None
        try:
            results = self.auto.generate(
                input=audio,
                batch_size=len(audio),
                language=case["language"],
                hotwords=case["hotwords"],
                itn=case["itn"],
                max_length=case["max_tokens"],
                llm_kwargs=NO_SAMPLING,
            )
        finally:
            self.model.ctc_decoder = ctc_decoder
        return [result["text"] for result in results], self._generated[-1]

    def _recording_generate(self, **kwargs: Any) -> torch.Tensor:
        self._generated.append(self._generate(**kwargs))
        return self._generated[-1]

    def _greedy_past_eos(self, embeds: torch.Tensor, steps: int) -> list[int]:
        """Greedy ids that go on behind a stop token, so that every case compares `steps` steps."""
        ids: list[int] = []
        output = self.model.llm(inputs_embeds=embeds, use_cache=True, logits_to_keep=1)
        while True:
            ids.append(int(output.logits[0, -1].argmax()))
            if len(ids) == steps:
                return ids
            output = self.model.llm(
                input_ids=torch.tensor([ids[-1:]]), past_key_values=output.past_key_values, use_cache=True
            )

    def _forced_logits(self, embeds: torch.Tensor, ids: list[int]) -> torch.Tensor:
        """Logits before each of `ids`, all of them forced, in one pass. (steps, vocabulary)."""
        forced = self.model.llm.get_input_embeddings()(torch.tensor([ids[:-1]], dtype=torch.long))
        inputs = torch.cat([embeds, forced], dim=1)
        return self.model.llm(inputs_embeds=inputs, use_cache=False, logits_to_keep=len(ids)).logits[0]

    def _fbank_difference(self, samples: np.ndarray, features: np.ndarray) -> float:
        """Largest difference between FunASR's features and kaldi-native-fbank + LFR written out here."""
        frontend = self.frontend
        options = knf.FbankOptions()
        options.frame_opts.samp_freq = frontend.fs
        options.frame_opts.window_type = frontend.window
        options.frame_opts.frame_length_ms = min(frontend.frame_length, len(samples) / frontend.fs * 1000)
        options.frame_opts.frame_shift_ms = frontend.frame_shift
        options.frame_opts.dither = 0.0
        options.mel_opts.num_bins = frontend.n_mels
        options.energy_floor = 0.0
        fbank = knf.OnlineFbank(options)
        fbank.accept_waveform(frontend.fs, samples * 32768)
        fbank.input_finished()
        frames = np.stack([fbank.get_frame(index) for index in range(fbank.num_frames_ready)])
        padded = np.concatenate([np.repeat(frames[:1], (frontend.lfr_m - 1) // 2, axis=0), frames])
        rows = [
            padded[np.minimum(np.arange(start, start + frontend.lfr_m), len(padded) - 1)].reshape(-1)
            for start in range(0, len(frames), frontend.lfr_n)
        ]
        if len(rows) != len(features):
            raise AssertionError(f"{len(rows)} LFR rows expected, {len(features)} from FunASR")
        return float(np.abs(np.stack(rows) - features).max())

    def _check_loaded(self, path: Path) -> None:
        """FunASR only prints the keys that it misses; insist that each tensor holds the checkpoint's values."""
        stored = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        for container in ("state_dict", "model_state_dict", "model"):
            stored = stored.get(container, stored)
        stored = {name.removeprefix("module."): value for name, value in stored.items()}
        loaded = self.model.state_dict()
        wrong = [n for n in loaded if n not in stored or not torch.equal(loaded[n], stored[n].to(loaded[n].dtype))]
        if wrong or len(loaded) > len(stored):
            raise AssertionError(f"{len(wrong)} tensors do not hold the checkpoint's values: {wrong[:5]}")

    def _check_tokenizer(self, path: str) -> None:
        """Insist that `tokenizer.json` alone is the tokenizer that transformers builds from the folder."""
        alone = Tokenizer.from_file(path)
        for text in TOKENIZER_PROBES:
            ids = alone.encode(text).ids
            if ids != self.tokenizer.encode(text):
                raise AssertionError(f"transformers and tokenizer.json encode {text!r} differently")
            if alone.decode(ids) != self.tokenizer.decode(ids, skip_special_tokens=True):
                raise AssertionError(f"transformers and tokenizer.json decode {text!r} differently")


def main() -> None:
    """Read the job, run it, write both files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("job", type=Path, help="job description (JSON)")
    parser.add_argument("out", type=Path, help="output path without suffix: OUT.json and OUT.npz are written")
    arguments = parser.parse_args()
    job = json.loads(arguments.job.read_text(encoding="utf-8"))
    reference = Reference(Path(job["checkpoint"]), job.get("threads", 2))
    reports: dict[str, Any] = {}
    arrays: dict[str, np.ndarray] = {}
    with torch.inference_mode():
        for run, entries in ((reference.run, job.get("cases", [])), (reference.run_batch, job.get("batches", []))):
            for entry in entries:
                reports[entry["name"]], found = run({**DEFAULTS, **entry})
                arrays |= {f"{entry['name']}/{name}": array for name, array in found.items()}
    out = str(arguments.out)
    Path(f"{out}.json").write_text(json.dumps(reports, indent=2, ensure_ascii=False), encoding="utf-8")
    np.savez(f"{out}.npz", **arrays)


if __name__ == "__main__":
    main()
