"""Run FunASR's PyTorch code on a job and record more than `--verify full` needs: JOB OUT.

Runs in the environment of the reference, without this package. Adds the CTC branch to every case. If no tokens are
forced, decodes greedily up to the case's limit and does not stop at a stop token.

A case may also have an "instruction" and a "dialogue" of earlier turns, and a list of "prompts": other dialogues,
with their "dataset_conf", of which only the tokens are recorded. Upstream's `inference_prepare` fails after two
turns without audio, though its prompt builder does not.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[3] / "funasr_cli/verification"))

from reference import Reference, main


class Recorder(Reference):
    """The reference model, with its CTC branch."""

    def run(self, case: dict[str, Any]) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        model, turned = self.model, "dialogue" in case
        if turned:
            model.generate_chatml = lambda prompt, audio: self._messages(case, audio)
        report, arrays = super().run(case)
        if turned:
            del model.generate_chatml
        kwargs = {name: each for name, each in self.auto.kwargs.items() if name not in ("tokenizer", "frontend")}
        report["prompts"] = [
            model.data_load_speech(
                model.data_template(self._messages(prompt, case["audio"])), self.tokenizer, self.frontend,
                **kwargs | {"dataset_conf": prompt["dataset_conf"]},
            )["source_ids"][0].tolist()
            for prompt in case.get("prompts", ())
        ]  # fmt: skip
        if self.model.ctc_decoder is not None:
            encoder = arrays["encoder"][None]  # (1, rows, width)
            decoded, _ = self.model.ctc_decoder(encoder, torch.tensor([encoder.shape[1]]))
            arrays["ctc_log_probs"] = log_probs = self.model.ctc.log_softmax(decoded)[0]  # (rows, CTC vocabulary)
            path = torch.unique_consecutive(log_probs.argmax(-1))
            report["ctc_ids"] = path[path != self.model.blank_id].tolist()
            report["ctc_text"] = self.model.ctc_tokenizer.decode(report["ctc_ids"])
            report["ctc_text_ids"] = self.model.ctc_tokenizer.encode(report["ctc_text"])
        return report, arrays

    def _messages(self, case: dict[str, Any], audio: str) -> list[dict[str, str]]:
        """Return the conversation that a case describes, in upstream's form."""
        turns = [{"role": role, "content": content} for role, content in case["dialogue"]]
        system, *recording = type(self.model).generate_chatml(self.model, case["instruction"], audio)
        return [*([] if turns and turns[0]["role"] == "system" else [system]), *turns, *recording]

    def forced_ids(self, case: dict[str, Any], embeds: torch.Tensor) -> list[int]:
        if "forced_ids" in case:
            return case["forced_ids"]
        ids: list[int] = []
        output = self.model.llm(inputs_embeds=embeds, use_cache=True, logits_to_keep=1)
        while True:
            ids.append(int(output.logits[0, -1].argmax()))
            if len(ids) == case["max_tokens"]:
                return ids
            output = self.model.llm(
                input_ids=torch.tensor([ids[-1:]]), past_key_values=output.past_key_values, use_cache=True
            )


if __name__ == "__main__":
    main(Recorder)
