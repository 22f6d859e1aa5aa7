"""The training loop: resumable, with a constant learning rate until the final decay, and averaged weights."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import nn

from . import data, evaluate
from .aim import aim_adaptor
from .export import export
from .network import DemoNetwork, TrainingAid, new_network
from .vocabulary import END_OF_TEXT, END_OF_TURN, build_llm_tokenizer, load_ctc_encoding, token_id, write_ranks

WARM_UP_STEPS, CTC_ONLY_STEPS = 200, 1600
CTC_WEIGHT = 0.5
AVERAGING = 0.998  # share of the averaged weights that one step keeps
AIM_BATCHES = 16
SAVE_EVERY_S = 180


@dataclass(frozen=True)
class Plan:
    """The parameters of a run.

    Attributes:
        steps: last step of the training; a later run with more steps continues from there.
        decay: number of final steps in which the learning rate falls to zero.
        aid: weight of the auxiliary losses; it falls to a tenth between `aid_until` / 2 and `aid_until`.
        corruption: share of the LLM's text input that is replaced at random.
    """

    state: Path
    steps: int = 8400
    decay: int = 2400
    rate: float = 1.5e-3
    aid: float = 1.0
    aid_until: int = 14_000
    corruption: float = 0.15
    seed: int = 0
    threads: int = 2
    evaluate_every: int = 500


class Trainer:
    """Model, optimizer, averages and position in the data: everything that a checkpoint contains."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.folder = plan.state
        (self.folder / "shards").mkdir(parents=True, exist_ok=True)
        self.tokenizer, self.ctc_encoding = load_vocabulary(self.folder)
        torch.manual_seed(plan.seed)
        self.network = make_network(self.tokenizer, self.ctc_encoding.n_vocab)
        self.aid = TrainingAid()
        self.modules = nn.ModuleDict({"network": self.network, "aid": self.aid})
        self.averaged = [p.detach().clone() for p in self.network.parameters()]
        matrices = [p for p in self.modules.parameters() if p.ndim > 1]
        vectors = [p for p in self.modules.parameters() if p.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": 0.02}, {"params": vectors, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, plan.rate, betas=(0.9, 0.98), fused=True)
        self.step, self.round, self.done = 0, 0, 0
        self.stopping = False  # requested by SIGTERM
        if self.checkpoint.exists():
            self._load()

    @property
    def checkpoint(self) -> Path:
        """The file of the whole state."""
        return self.folder / "checkpoint.pt"

    def run(self) -> None:
        """Train to the planned step."""
        shards, plan = self.folder / "shards", self.plan
        data.announce_round(shards, self.round)
        context = multiprocessing.get_context("spawn")
        producer = context.Process(target=data.produce, args=(shards, plan.seed), daemon=True)
        producer.start()
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "stopping", True))
        (self.folder / "pids").write_text(f"{os.getpid()}\n{producer.pid}\n")
        collate = data.Collator(self.tokenizer, self.ctc_encoding)
        quick_set = evaluate.make_clips(evaluate.QUICK_CLIPS, plan.seed, None)
        sums: dict[str, float] = {}
        since = self.step
        began = saved = time.monotonic()
        recent: deque[data.Batch] = deque(maxlen=AIM_BATCHES)
        for round_, done, batch in data.batches(shards, collate, plan.seed, self.round, self.done):
            self.round, self.done = round_, done
            recent.append(batch)
            if self.step == CTC_ONLY_STEPS:
                self._log(aim_adaptor(self.network, list(recent)))
            for name, value in self._train_step(batch).items():
                sums[name] = sums.get(name, 0.0) + value
            if self.step % 50 == 0:
                steps = self.step - since
                sums["seconds"] = time.monotonic() - began
                means = {name: round(value / steps, 4) for name, value in sums.items()}
                self._log(means | {"round": self.round})
                sums, since, began = {}, self.step, time.monotonic()
            if self.step % plan.evaluate_every == 0 or self.step >= plan.steps:
                with self.averaged_weights():
                    self._log(evaluate.summary(evaluate.error_counts(self.network, collate, quick_set)))
                began = time.monotonic()
            finished = self.stopping or self.step >= plan.steps
            if finished or time.monotonic() - saved > SAVE_EVERY_S:
                self._save()
                saved = time.monotonic()
            if finished:
                break

    def averaged_weights(self) -> evaluate.Swapped:
        """Return a context in which the network uses its averaged weights."""
        return evaluate.Swapped(self.network, self.averaged)

    def _train_step(self, batch: data.Batch) -> dict[str, float]:
        plan = self.plan
        left = min(1.0, (plan.steps - self.step) / plan.decay)
        rate = plan.rate * min(1.0, (self.step + 1) / WARM_UP_STEPS) * max(left, 0.0)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast("cpu", torch.bfloat16):  # a third less time on a CPU with bfloat16 arithmetic
            losses = self._losses(batch)
        sum(weight * loss for weight, loss in losses.values()).backward()
        nn.utils.clip_grad_norm_(self.modules.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        keep = min(AVERAGING, (1 + self.step) / (10 + self.step))
        parameters = [p.detach() for p in self.network.parameters()]
        torch._foreach_lerp_(self.averaged, parameters, 1 - keep)
        return {name: loss.item() for name, (_, loss) in losses.items()} | {"rate": rate}

    def _losses(self, batch: data.Batch) -> dict[str, tuple[float, torch.Tensor]]:
        """Return (weight, loss) by name."""
        plan = self.plan
        fall = min(max(2 * self.step / plan.aid_until - 1, 0.0), 1.0)
        aid_weight = plan.aid * 0.1**fall
        encoded = self.network.encode(batch.features, batch.lengths)
        log_probs = self.network.ctc_log_probs(encoded, batch.lengths).float()
        losses = {
            "ctc": (CTC_WEIGHT, self.network.ctc_loss(log_probs, batch.lengths, batch)),
            "places": (aid_weight, self.aid.places_loss(encoded, batch)),
        }
        if self.step >= CTC_ONLY_STEPS:
            adapted = self.network.audio_adaptor(encoded, batch.lengths)[0]
            losses["rows"] = (0.5 * aid_weight, self.aid.rows_loss(adapted, self.network, batch))
            losses["text"] = (1.0, self.network.text_loss(batch, adapted, plan.corruption))
        return losses

    def _save(self) -> None:
        state = {
            "modules": self.modules.state_dict(), "optimizer": self.optimizer.state_dict(),
            "averaged": self.averaged, "step": self.step, "round": self.round, "done": self.done,
            "torch_rng": torch.get_rng_state(),
        }  # fmt: skip
        part = self.checkpoint.with_suffix(".part")
        torch.save(state, part)
        part.rename(self.checkpoint)

    def _load(self) -> None:
        state = torch.load(self.checkpoint, weights_only=True)
        self.modules.load_state_dict(state["modules"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.averaged = state["averaged"]
        self.step, self.round, self.done = state["step"], state["round"], state["done"]
        torch.set_rng_state(state["torch_rng"])

    def _log(self, values: Mapping[str, object]) -> None:
        line = json.dumps({"step": self.step, "time": time.strftime("%H:%M:%S"), **values}, ensure_ascii=False)
        print(line, flush=True)
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(line + "\n")


def load_vocabulary(folder: Path) -> tuple[Tokenizer, evaluate.Encoding]:
    """Load the two vocabularies from the training's folder; learn and store them on the first run."""
    llm_path, ctc_path = folder / "tokenizer.json", folder / "multilingual.tiktoken"
    if not llm_path.exists():
        build_llm_tokenizer().save(str(llm_path))
        write_ranks(ctc_path)
    return Tokenizer.from_file(str(llm_path)), load_ctc_encoding(ctc_path)


def make_network(tokenizer: Tokenizer, ctc_ranks: int) -> DemoNetwork:
    """Return a new network for the vocabularies."""
    end, padding = token_id(tokenizer, END_OF_TURN), token_id(tokenizer, END_OF_TEXT)
    return new_network(tokenizer.get_vocab_size(), ctc_ranks, end, padding)


def train(plan: Plan) -> None:
    """Start or resume training in the plan's folder; exit with an error if stopped before the last step."""
    torch.set_num_threads(plan.threads)
    trainer = Trainer(plan)
    trainer.run()
    if trainer.step < plan.steps:
        raise SystemExit("stopped before the end: run the same command again to continue")


def evaluate_state(state: Path, clips: int, snr: float | None, seed: int) -> dict[str, float]:
    """Return error rates in percent of the averaged weights in `state`, rounded to bfloat16 as in an export."""
    network, tokenizer = load_averaged(state)
    for parameter in network.parameters():
        parameter.data = parameter.data.to(torch.bfloat16).float()
    collate = data.Collator(tokenizer, load_vocabulary(state)[1])
    return evaluate.summary(evaluate.error_counts(network, collate, evaluate.make_clips(clips, seed, snr)))


def export_state(state: Path, out: Path) -> None:
    """Write the averaged weights in `state` as an upstream checkpoint."""
    network, tokenizer = load_averaged(state)
    export(network, tokenizer, state / "multilingual.tiktoken", out)


def load_averaged(state: Path) -> tuple[DemoNetwork, Tokenizer]:
    """Return the network with the averaged weights of a training, and its tokenizer."""
    tokenizer, ctc_encoding = load_vocabulary(state)
    network = make_network(tokenizer, ctc_encoding.n_vocab)
    averaged = torch.load(state / "checkpoint.pt", weights_only=True)["averaged"]
    with torch.no_grad():
        for parameter, weight in zip(network.parameters(), averaged, strict=True):
            parameter.copy_(weight)
    return network.eval(), tokenizer
