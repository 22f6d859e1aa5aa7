"""Run FunASR's own SenseVoiceSmall on a job, stage by stage: JOB OUT.

Runs in the environment of the reference, without this package. A job is a JSON list of {"checkpoint": folder,
"lessons": [{"audio": path, "language": "zh", "itn": true, "pieces": [...]}], "cases": [{"name": ..., "audio":
[paths], "language": "auto", "itn": true, "timestamps": false, "generate": false}]}. If there are lessons, the CTC
head is first solved for, so that the checkpoint reads these pieces from these clips; then the checkpoint is
rewritten. OUT.json receives the result of each row of a case, OUT.npz arrays named "{case}/{row}/{array}".
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from funasr import AutoModel
from funasr.utils.load_utils import extract_fbank, load_audio_text_image_video

HEIGHT = 12.0  # the winning logit; all others get its negative
QUERIES = 4


class Reference:
    """The loaded upstream model."""

    def __init__(self, checkpoint: Path) -> None:
        self.path = checkpoint / "model.pt"
        self.auto = AutoModel(
            model=str(checkpoint), device="cpu", ncpu=1, disable_update=True, disable_pbar=True, log_level="ERROR",
            frontend_conf={"dither": 0.0},
        )  # fmt: skip
        self.model, self.tokenizer = self.auto.model, self.auto.kwargs["tokenizer"]
        self.frontend = self.auto.kwargs["frontend"]
        stored = torch.load(self.path, map_location="cpu", weights_only=True)
        self.container = stored if "embed.weight" not in stored else {"state_dict": stored}
        self.stored = next(iter(self.container.values()))
        loaded = self.model.state_dict()  # FunASR only prints a message when tensors are missing
        wrong = [name for name, value in loaded.items() if not torch.equal(value, self.stored[name])]
        if wrong or len(loaded) != len(self.stored) or self.frontend.cmvn is None:
            raise AssertionError(f"not loaded as stored: {wrong[:5]}")
        self._features: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def features(self, paths: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return padded features (batch, rows, width) and the number of rows of each."""
        key = "\n".join(paths)
        if key not in self._features:
            samples = [load_audio_text_image_video(path, fs=self.frontend.fs) for path in paths]
            self._features[key] = extract_fbank(samples, frontend=self.frontend)
        features, lengths = self._features[key]
        return features.clone(), lengths.clone().reshape(-1)  # upstream modifies both in place

    def run(self, case: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
        """Return each row's result and its stages."""
        features, lengths = self.features(case["audio"])
        stages: dict[str, torch.Tensor] = {}
        hooks = [
            module.register_forward_hook(lambda _, __, out, name=name: stages.update({name: out}))
            for name, module in (("encoder", self.model.encoder), ("logits", self.model.ctc.ctc_lo))
        ]
        asked = {"language": case["language"], "use_itn": case["itn"]}
        results, _ = self.model.inference(
            features.clone(), lengths.clone(), key=[str(row) for row in range(len(lengths))], data_type="fbank",
            tokenizer=self.tokenizer, frontend=self.frontend, device="cpu",
            output_timestamp=case.get("timestamps", False), **asked,
        )  # fmt: skip
        for hook in hooks:
            hook.remove()
        if case.get("generate"):
            again = self.auto.generate(input=case["audio"], batch_size=len(lengths), **asked)
            if [one["text"] for one in again] != [one["text"] for one in results]:
                raise AssertionError(f"generate() says {again}, inference() {results}")
        report, arrays = [], {}
        for row, (length, result) in enumerate(zip(lengths.tolist(), results, strict=True)):
            logits = stages["logits"][row, : QUERIES + length]
            found = {"encoder": stages["encoder"][0][row, : QUERIES + length], "logits": logits}
            if case.get("features"):
                found["features"] = features[row, :length]
            path = torch.unique_consecutive(logits[QUERIES:].argmax(-1))  # audio frames only, without the queries
            spoken = self.tokenizer.decode(path[path != 0].tolist())
            times = {name: result[name] for name in ("timestamp", "words") if name in result}
            report.append({"text": result["text"], "spoken": spoken, **times})
            arrays |= {f"{row}/{name}": array.numpy() for name, array in found.items()}
        return report, arrays

    def teach(self, lessons: list[dict[str, Any]]) -> None:
        """Solve for a head that reads its lesson from each clip: four tags, then text spread over the frames."""
        if not lessons:
            return
        hidden, labels = [], []
        for number, lesson in enumerate(lessons):
            case = lesson | {"name": str(number), "audio": [lesson["audio"]]}
            encoded = torch.from_numpy(self.run(case)[1]["0/encoder"])
            ids = [self.tokenizer.sp.PieceToId(piece) for piece in lesson["pieces"]]
            frames = [*ids[:QUERIES], *[0] * (len(encoded) - QUERIES)]
            for index, label in enumerate(ids[QUERIES:]):
                start = QUERIES + 1 + index * (len(encoded) - QUERIES) // (len(ids) - QUERIES)
                frames[start : start + 2] = [label] * 2
            hidden.append(encoded)
            labels += frames
        rows = torch.cat(hidden).double()
        design = torch.cat([rows, torch.ones(len(rows), 1)], 1)
        if len(design) > design.shape[1]:
            raise AssertionError(f"{len(design)} frames for {design.shape[1]} unknowns")
        head = self.model.ctc.ctc_lo
        head.weight.data.zero_()
        head.bias.data.fill_(-HEIGHT)
        for label in set(labels):
            wanted = torch.tensor([HEIGHT if one == label else -HEIGHT for one in labels]).double()
            solved = torch.linalg.lstsq(design, wanted[:, None], driver="gelsd").solution[:, 0]
            head.weight.data[label], head.bias.data[label] = solved[:-1].float(), solved[-1].float()
        self.stored.update({"ctc.ctc_lo.weight": head.weight.data, "ctc.ctc_lo.bias": head.bias.data})
        torch.save(self.container, self.path)


def main() -> None:
    """Read the job, run it and write both files."""
    torch.set_num_threads(1)
    reports: dict[str, Any] = {}
    arrays: dict[str, np.ndarray] = {}
    with torch.inference_mode():
        for job in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
            reference = Reference(Path(job["checkpoint"]))
            reference.teach(job.get("lessons", []))
            for case in job["cases"]:
                reports[case["name"]], found = reference.run(case)
                arrays |= {f"{case['name']}/{name}": array for name, array in found.items()}
    Path(f"{sys.argv[2]}.json").write_text(json.dumps(reports, ensure_ascii=False), encoding="utf-8")
    np.savez(f"{sys.argv[2]}.npz", **arrays)


if __name__ == "__main__":
    main()
