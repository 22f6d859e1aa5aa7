"""Run FunASR's own Paraformer models on a job, stage by stage: JOB OUT.

Runs in the environment of the reference, without this package. A job is a JSON list of {"checkpoint": folder,
"lessons": [{"audio": path, "tokens": [...]}], "cases": [{"name": ..., "audio": path, "hotword": null}]}. If there
is a lesson, the weights of the predictor and the output layer are first solved for, so that the checkpoint reads
these tokens from this clip; then it is rewritten. OUT.json receives the result of each case, OUT.npz arrays named
"{case}/{array}". Each clip is run alone, because upstream's batches give other results.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from funasr import AutoModel
from funasr.utils.postprocess_utils import sentence_postprocess
from funasr.utils.timestamp_tools import ts_prediction_lfr6_standard

HEIGHT = 12.0  # the winning logit; all others get its negative


class Reference:
    """The loaded upstream model."""

    def __init__(self, checkpoint: Path) -> None:
        self.path = checkpoint / "model.pt"
        self.auto = AutoModel(
            model=str(checkpoint), device="cpu", ncpu=1, disable_update=True, disable_pbar=True, log_level="ERROR",
            frontend_conf={"dither": 0.0},
        )  # fmt: skip
        self.model, self.tokens = self.auto.model, self.auto.kwargs["token_list"]
        self.container = torch.load(self.path, map_location="cpu", weights_only=True)
        self.stored = self.container["state_dict"]
        loaded = self.model.state_dict()  # FunASR only prints a message when tensors are missing
        wrong = [name for name, value in loaded.items() if not torch.equal(value, self.stored[name])]
        if wrong or len(loaded) != len(self.stored) or self.auto.kwargs["frontend"].cmvn is None:
            raise AssertionError(f"not loaded as stored: {wrong[:5]}")

    def run(self, case: dict[str, Any]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return a clip's result and its stages."""
        stages: dict[str, torch.Tensor] = {}

        def keep(*names: str) -> Any:
            def hook(_: Any, __: Any, out: Any) -> None:
                values = out if isinstance(out, tuple) else (out,)
                stages.update({name: value.clone() for name, value in zip(names, values)})  # noqa: B905

            return hook

        model, frontend = self.model, type(self.auto.kwargs["frontend"])  # generate() copies the front end
        tapped = [
            (model.encoder, ("encoder",)),
            (model.predictor, ("embeddings", "tokens", "alphas", "peaks")),
            (model.decoder.after_norm, ("decoded",)),
            (model.decoder.output_layer, ("logits",)),
        ]
        if hasattr(model, "hotword_output_layer"):
            tapped.append((model.hotword_output_layer, ("hotword_logits",)))
        hooks = [module.register_forward_hook(keep(*names)) for module, names in tapped]
        forward, fine = frontend.forward, getattr(model.predictor, "get_upsample_timestamp", None)

        def features(*arguments: Any, **more: Any) -> Any:
            out = forward(*arguments, **more)
            stages["features"] = out[0].clone()
            return out

        def fine_weights(*arguments: Any) -> Any:
            out = fine(*arguments)
            stages.update({"fine_weights": out[2].clone(), "fine_peaks": out[3].clone()})
            return out

        frontend.forward = features
        if fine:
            model.predictor.get_upsample_timestamp = fine_weights
        try:
            hotword = {"hotword": case["hotword"]} if case.get("hotword") else {}
            results = self.auto.generate(input=[case["audio"]], batch_size=1, **hotword)
        finally:
            frontend.forward = forward
            if fine:
                model.predictor.get_upsample_timestamp = fine
            for hook in hooks:
                hook.remove()
        arrays = {name: value[0].numpy() for name, value in stages.items()}
        if "logits" not in arrays:  # nothing fired
            return {"text": results[0]["text"] if results else "", "ids": []}, arrays
        count = int(stages["tokens"][0].round())
        chosen = torch.log_softmax(stages["logits"][0, :count], -1)
        if "hotword_logits" in stages:
            heard = torch.log_softmax(stages["hotword_logits"][0, :count], -1)
            none = (heard.argmax(-1) == model.NO_BIAS)[:, None]
            chosen = torch.where(none, chosen, heard)
        ids = chosen.argmax(-1).tolist()
        texts = [self.tokens[token_id] for token_id in ids if token_id > 2]
        report = {"text": results[0]["text"], "ids": ids, "plain": sentence_postprocess(texts)[0] if texts else ""}
        if "fine_weights" in stages and texts:
            clones = [stages[name][0].clone() for name in ("fine_weights", "fine_peaks")]
            report["times_ms"] = ts_prediction_lfr6_standard(*clones, texts)[1]
            report["words_ms"] = results[0]["timestamp"]
        return report, arrays

    def teach(self, lesson: dict[str, Any]) -> None:
        """Solve for output layers with which a clip has these tokens, and </s>."""
        case = {"audio": lesson["audio"]}
        wanted = len(lesson["tokens"]) + 1
        alphas = torch.from_numpy(self.run(case)[1]["alphas"][:-1])
        raised, low, high = torch.logit(alphas.clamp(1e-6, 1 - 1e-6)), -20.0, 20.0
        for _ in range(60):  # shift the weights until they add up to the wanted number
            middle = (low + high) / 2
            low, high = (middle, high) if torch.sigmoid(raised + middle).sum() < wanted else (low, middle)
        self.model.predictor.cif_output.bias.data += low
        decoded = torch.from_numpy(self.run(case)[1]["decoded"])
        ids = [*(self.tokens.index(token) for token in lesson["tokens"]), 2]
        if len(decoded) != len(ids):
            raise AssertionError(f"{len(decoded)} tokens, wanted {len(ids)}")
        design = torch.cat([decoded, torch.ones(len(decoded), 1)], 1).double()
        head = self.model.decoder.output_layer
        head.weight.data.zero_()
        head.bias.data.fill_(-HEIGHT)
        for label in set(ids):
            goal = torch.tensor([HEIGHT if one == label else -HEIGHT for one in ids]).double()
            solved = torch.linalg.lstsq(design, goal[:, None], driver="gelsd").solution[:, 0]
            head.weight.data[label], head.bias.data[label] = solved[:-1].float(), solved[-1].float()
        names = ("predictor.cif_output.bias", "decoder.output_layer.weight", "decoder.output_layer.bias")
        self.stored.update({name: self.model.state_dict()[name] for name in names})
        torch.save(self.container, self.path)


def main() -> None:
    """Read the job, run it and write both files."""
    torch.set_num_threads(1)
    reports: dict[str, Any] = {}
    arrays: dict[str, np.ndarray] = {}
    with torch.inference_mode():
        for job in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
            reference = Reference(Path(job["checkpoint"]))
            for lesson in job.get("lessons", []):
                reference.teach(lesson)
            for case in job["cases"]:
                reports[case["name"]], found = reference.run(case)
                arrays |= {f"{case['name']}/{name}": array for name, array in found.items()}
    Path(f"{sys.argv[2]}.json").write_text(json.dumps(reports, ensure_ascii=False), encoding="utf-8")
    np.savez(f"{sys.argv[2]}.npz", **arrays)


if __name__ == "__main__":
    main()
