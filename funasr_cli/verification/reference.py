"""Run FunASR's own PyTorch model and return the output of every stage for a clip.

This file has two roles, with separate imports. `run_job`, in this package, writes a job and starts
`python reference.py JOB OUT` in a Python that has FunASR, torch, transformers and kaldi-native-fbank, but not this
package. A job is JSON: {"checkpoint": folder, "threads": 2, "cases": [{"name": ..., "audio": path, "forced_ids":
[...]}], "batches": [{"name": ..., "audio": [paths]}]}. Cases and batches may set "language" (in Chinese),
"hotwords", "itn" and "max_tokens". Texts are written to OUT.json, arrays to OUT.npz as "{case}/{array}".
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import yaml

if __package__:
    from funasr_cli.checkpoints.checkpoint import Checkpoint
    from funasr_cli.checkpoints.format import CTC_VOCABULARY_FILE
    from funasr_cli.checkpoints.funasr import UPSTREAM_CONFIG, UPSTREAM_WEIGHTS
    from funasr_cli.checkpoints.untrusted import readable, reason_in_a_line
    from funasr_cli.errors import ModelError, SetupError
    from funasr_cli.families import registry
    from funasr_cli.paths import REFERENCE_PYTHON, path_in_variable
else:
    import torch
    from funasr import AutoModel
    from funasr.utils.load_utils import extract_fbank, load_audio_text_image_video
    from tokenizers import Tokenizer

DECODER_FOLDER = "Qwen3-0.6B"  # as in a release
APART = "import sys; del sys.path[0]; "  # do not import from the current folder, which may be a checkpoint
HINT = (
    "pip install funasr kaldi-native-fbank transformers torch into a separate environment (since it installs "
    "another funasr command), and set FUNASR_REFERENCE_PYTHON to its interpreter"
)
NOT_PASSED_ON = ("PYTHONPATH", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD")  # the latter conflicts with the setting below
CASE: dict[str, Any] = {"language": None, "hotwords": [], "itn": True, "max_tokens": 64}
TOKENIZER_PROBES = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n语音转写成中文：",
    "**上下文信息：**\n\n\n热词列表：[Kennedy, 滨海]\n<think>\n\n</think>\n\n",
    "  It's 2024, I'LL \t x\r\n\r\n e\u0301 \u212b １2٣ 한국어 ไทย हिन्दी 😀\u200d /sil",
)


def reference_python() -> Path:
    """Return the Python interpreter that has FunASR, usable from any folder.

    Raises:
        SetupError: the interpreter in `REFERENCE_PYTHON`, or by default the current one, lacks FunASR.
    """
    python = path_in_variable(REFERENCE_PYTHON) or Path(sys.executable)
    try:
        found = subprocess.run([python, "-c", f"{APART}import funasr, kaldi_native_fbank"], capture_output=True)
    except OSError as error:
        raise SetupError(f"{python}: cannot be run ({error.strerror})", HINT, code="reference-missing") from error
    if found.returncode:
        message = f"{python}: lacks the PyTorch reference (funasr, kaldi-native-fbank)"
        raise SetupError(message, HINT, code="reference-missing")
    return python.absolute() if python.is_file() else python  # a bare name is found through PATH


def run_job(checkpoint: Checkpoint, work: dict[str, Any]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Run cases and batches on an opened checkpoint in FunASR's layout; return the reports and the arrays.

    Raises:
        SetupError: the reference is not installed, or the temporary folder cannot be written.
        ModelError: the reference failed.
    """
    python = reference_python()
    # The subprocess must not use the network, unpickle code, or import this package.
    environment = {name: value for name, value in os.environ.items() if name not in NOT_PASSED_ON}
    environment |= dict.fromkeys(("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "TORCH_FORCE_WEIGHTS_ONLY_LOAD"), "1")
    try:
        with tempfile.TemporaryDirectory(prefix="funasr-reference-") as folder:
            job, out, source = (Path(folder, name) for name in ("job.json", "out", "checkpoint"))
            _write_checkpoint(checkpoint, source)
            job.write_text(json.dumps({"checkpoint": str(source), **work}), encoding="utf-8")
            done = subprocess.run(
                [python, __file__, job, out], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                errors="replace", check=False, env=environment, cwd=folder,
            )  # fmt: skip
            if done.returncode:
                last = readable((done.stderr.strip().splitlines() or ["no message"])[-1])
                message = f"{checkpoint.weights[0].parent}: the PyTorch reference failed ({last})"
                raise ModelError(message, "check that FunASR itself can load the model", code="reference-failed")
            reports = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))
            with np.load(out.with_suffix(".npz")) as arrays:
                return reports, dict(arrays)
    except OSError as error:
        message = f"{tempfile.tempdir or 'the temporary folder'}: cannot be written ({reason_in_a_line(error)})"
        hint = "free some space there, or set TMPDIR to another folder"
        raise SetupError(message, hint, code="temporary-folder") from error


def _write_checkpoint(checkpoint: Checkpoint, folder: Path) -> None:
    """Write a copy of the checkpoint that is safe for the reference.

    FunASR imports code and installs packages that a ``config.yaml`` names, and transformers imports code that a
    decoder's ``config.json`` names. Both files are therefore generated from checked values. All other files are
    links to checked ones.
    """
    upstream_options = registry.of_config(checkpoint.config).upstream_options
    assert upstream_options is not None  # otherwise `proof.verifier` raises an error
    options, llm_options = upstream_options(checkpoint.config, DECODER_FOLDER)
    if checkpoint.adaptation:
        options["llm_conf"] |= {"use_lora": True, "lora_conf": checkpoint.adaptation.lora_conf}
    decoder = folder / DECODER_FOLDER
    decoder.mkdir(parents=True)
    (folder / UPSTREAM_WEIGHTS).symlink_to(checkpoint.weights[0].resolve())
    for name, path in checkpoint.files.items():
        (folder if name == CTC_VOCABULARY_FILE else decoder).joinpath(name).symlink_to(path.resolve())
    if checkpoint.config.ctc:
        options["dataset_conf"]["ctc_tokenizer_conf"]["vocab_path"] = str(folder / CTC_VOCABULARY_FILE)
    (folder / UPSTREAM_CONFIG).write_text(yaml.safe_dump(options), encoding="utf-8")
    (decoder / "config.json").write_text(json.dumps(llm_options | {"torch_dtype": "float32"}), encoding="utf-8")


class Reference:
    """The upstream model, loaded in the Python that has FunASR. It runs one case at a time."""

    def __init__(self, checkpoint: Path, threads: int) -> None:
        config = yaml.safe_load((checkpoint / "config.yaml").read_text(encoding="utf-8"))
        llm_path = str(checkpoint / config["llm_conf"]["init_param_path"])
        self.auto = AutoModel(
            model=str(checkpoint), device="cpu", ncpu=threads,
            disable_update=True, disable_pbar=True, log_level="ERROR",
            frontend_conf={**config["frontend_conf"], "dither": 0.0},
            llm_conf={**config["llm_conf"], "init_param_path": llm_path, "llm_dtype": "fp32"},
            tokenizer_conf={"init_param_path": llm_path},
        )  # fmt: skip
        self.model, kwargs = self.auto.model, self.auto.kwargs
        self.frontend, self.tokenizer = kwargs["frontend"], kwargs["tokenizer"]
        self._check_loaded(checkpoint / "model.pt")
        self._check_tokenizer(f"{llm_path}/tokenizer.json")

    def run(self, case: dict[str, Any]) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """Run a case through every stage; return its report for the JSON file, and the arrays."""
        samples = load_audio_text_image_video(case["audio"], fs=self.frontend.fs)  # (n,), 16 kHz
        features, _ = extract_fbank(samples, frontend=self.frontend, is_final=True)  # (1, rows, 560)
        prompt = self.model.get_prompt(case["hotwords"], case["language"], case["itn"])
        kwargs = {name: value for name, value in self.auto.kwargs.items() if name not in ("tokenizer", "frontend")}
        embeds, _, batch, prompt_ids, stages = self.model.inference_prepare(
            [self.model.generate_chatml(prompt, case["audio"])],
            None,
            None,
            self.tokenizer,
            self.frontend,
            **kwargs,
        )
        begin, count = int(batch["fbank_beg"].max()), int(batch["fake_token_len"].max())  # of the last turn
        audio_embeddings, adaptor = embeds[0, begin : begin + count], stages["audio_adaptor_out"][0]
        if not torch.equal(audio_embeddings, adaptor[:count]):
            raise AssertionError("the prompt's audio embeddings are not the adaptor's first rows")
        forced = self.forced_ids(case, embeds)
        texts, generated_ids = self.transcribe([case["audio"]], case)
        arrays = {
            "samples": samples, "features": features[0], "encoder": stages["encoder_out"][0], "adaptor": adaptor,
            "audio_embeddings": audio_embeddings, "prompt_ids": prompt_ids[0], "inputs_embeds": embeds[0],
            "forced_ids": torch.tensor(forced), "forced_logits": self._forced_logits(embeds, forced),
            "generated_ids": generated_ids[0],
        }  # fmt: skip
        return {"text": texts[0], "audio_begin": begin, "audio_tokens": count}, arrays

    def run_batch(self, batch: dict[str, Any]) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """Decode several files in one left-padded batch, as `generate(batch_size=n)` does."""
        texts, ids = self.transcribe(batch["audio"], batch)
        return {"texts": texts}, {"generated_ids": ids}

    def forced_ids(self, case: dict[str, Any], embeds: torch.Tensor) -> list[int]:
        """Return the tokens to force after a prompt, whose embeddings are (1, columns, hidden)."""
        return case["forced_ids"]

    def transcribe(self, audio: list[str], case: dict[str, Any]) -> tuple[list[str], torch.Tensor]:
        """Return the texts of upstream's `generate()` and the decoded ids.

        The CTC branch is disabled, since it needs torchaudio.
        """
        decoded: list[torch.Tensor] = []
        generate, ctc_decoder = self.model.llm.generate, self.model.ctc_decoder
        self.model.llm.generate = lambda **options: decoded.append(generate(**options)) or decoded[-1]  # type: ignore
        self.model.ctc_decoder = None
        try:
            results = self.auto.generate(
                input=audio, batch_size=len(audio), language=case["language"], hotwords=case["hotwords"],
                itn=case["itn"], max_length=case["max_tokens"], llm_kwargs={"do_sample": False},
            )  # fmt: skip
        finally:
            self.model.llm.generate, self.model.ctc_decoder = generate, ctc_decoder
        return [result["text"] for result in results], decoded[-1]

    def _forced_logits(self, embeds: torch.Tensor, ids: list[int]) -> torch.Tensor:
        """Return the logits before each of `ids`, all of them forced in one pass: (steps, vocabulary)."""
        forced = self.model.llm.get_input_embeddings()(torch.tensor([ids[:-1]], dtype=torch.long))
        inputs = torch.cat([embeds, forced], dim=1)
        return self.model.llm(inputs_embeds=inputs, use_cache=False, logits_to_keep=len(ids)).logits[0]

    def _check_loaded(self, path: Path) -> None:
        """Raise an error unless every tensor has the checkpoint's values. FunASR only prints missing keys."""
        stored = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        for container in ("state_dict", "model_state_dict", "model"):
            stored = stored.get(container, stored)
        stored = {name.removeprefix("module."): value for name, value in stored.items()}
        loaded = self.model.state_dict()
        wrong = [n for n in loaded if n not in stored or not torch.equal(loaded[n], stored[n].to(loaded[n].dtype))]
        if wrong or len(loaded) > len(stored):
            raise AssertionError(f"{len(wrong)} tensors do not hold the checkpoint's values: {wrong[:5]}")

    def _check_tokenizer(self, path: str) -> None:
        """Raise an error unless `tokenizer.json` alone gives the tokenizer that transformers builds."""
        alone = Tokenizer.from_file(path)
        for text in TOKENIZER_PROBES:
            ids = alone.encode(text).ids
            spelled = self.tokenizer.decode(ids, skip_special_tokens=True)
            if (ids, alone.decode(ids)) != (self.tokenizer.encode(text), spelled):
                raise AssertionError(f"transformers and tokenizer.json read {text!r} differently")


def main(kind: type[Reference] = Reference) -> None:
    """Read the job, run it, and write both files."""
    job, out = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), sys.argv[2]
    reference = kind(Path(job["checkpoint"]), job.get("threads", 2))
    reports: dict[str, Any] = {}
    arrays: dict[str, np.ndarray] = {}
    with torch.inference_mode():
        for run, entries in ((reference.run, job.get("cases", [])), (reference.run_batch, job.get("batches", []))):
            for entry in entries:
                reports[entry["name"]], found = run({**CASE, **entry})
                arrays |= {f"{entry['name']}/{name}": array.numpy() for name, array in found.items()}
    Path(f"{out}.json").write_text(json.dumps(reports, ensure_ascii=False), encoding="utf-8")
    np.savez(f"{out}.npz", **arrays)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
