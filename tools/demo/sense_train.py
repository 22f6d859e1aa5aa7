"""Train the small SenseVoice: the demo model's encoder learns SenseVoice's queries, CMVN and one linear head."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from . import data, sense_data
from .evaluate import Swapped
from .features import stack_rows
from .sense_export import export
from .sense_network import QUERIES, Cmvn, SenseNetwork, Teacher, ctc_loss, new_network
from .sense_vocabulary import build_pieces, load_pieces, pieces_of_ranks
from .vocabulary import load_ctc_encoding

DEMO_MODEL = Path(__file__).resolve().parents[2] / "funasr_cli" / "demo" / "model"
WARM_UP_STEPS, STEADY_SHARE = 100, 0.3
AVERAGING = 0.995  # share of the averaged weights that one step keeps
CTC_WEIGHT, TEACHER_WEIGHT, TAGS_WEIGHT = 0.5, 1.0, 0.2
SHARDS_AT_FIRST = 2  # number required before training starts
SAMPLE_CLIPS = 256
LOG_EVERY, SAVE_EVERY_S = 50, 120


@dataclass(frozen=True)
class SensePlan:
    """The parameters of a run.

    Attributes:
        state: folder of clips, checkpoint and log; the same command resumes from there.
        out: folder for the finished checkpoint in upstream's layout.
        shards: number of files of `sense_data.SHARD_CLIPS` clips to synthesise.
    """

    state: Path
    out: Path
    steps: int = 2000
    shards: int = 24
    rate: float = 1.2e-3
    seed: int = 0
    threads: int = 2


class SenseTrainer:
    """Network, optimizer, averages and lessons."""

    def __init__(self, plan: SensePlan) -> None:
        self.plan, self.step, self.stopping = plan, 0, False
        self._shards = plan.state / "shards"
        self._shards.mkdir(parents=True, exist_ok=True)
        self.pieces_file = build_pieces()
        self.pieces = load_pieces(self.pieces_file)
        ranks = load_ctc_encoding(DEMO_MODEL / "multilingual.tiktoken")
        teacher = Teacher(DEMO_MODEL, ranks.n_vocab)
        self._lecturer = sense_data.Lecturer(teacher, self.pieces, pieces_of_ranks(self.pieces, ranks))
        self._lessons: list[sense_data.Lesson] = []
        self._heard = 0  # number of shards in the lessons
        context = multiprocessing.get_context("spawn")
        arguments = (self._shards, plan.seed, range(plan.shards))
        self._producer = context.Process(target=sense_data.produce, args=arguments, daemon=True)
        self._producer.start()
        first = self._wait_for(0)
        self.cmvn = Cmvn.measure(np.concatenate([clip.frames for clip in first if clip.sentence.spoken]))
        torch.manual_seed(plan.seed)
        sample = np.concatenate([stack_rows(clip.frames.astype(np.float32)) for clip in first[:SAMPLE_CLIPS]])
        size = self.pieces.vocab_size()
        self.network: SenseNetwork = new_network(size, teacher, self.cmvn, torch.from_numpy(sample))
        self.averaged = [p.detach().clone() for p in self.network.parameters()]
        matrices = [p for p in self.network.parameters() if p.ndim > 1]
        vectors = [p for p in self.network.parameters() if p.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": 0.02}, {"params": vectors, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, plan.rate, betas=(0.9, 0.98), fused=True)
        if self._checkpoint.exists():
            self._load()

    @property
    def _checkpoint(self) -> Path:
        return self.plan.state / "checkpoint.pt"

    def run(self) -> bool:
        """Train to the planned step; return whether it was reached. SIGTERM saves and stops."""
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "stopping", True))
        sums: dict[str, float] = {}
        began = saved = time.monotonic()
        for batch in self._batches():
            if self.stopping or self.step >= self.plan.steps:
                break
            for name, value in self._train_step(batch).items():
                sums[name] = sums.get(name, 0.0) + value
            if self.step % LOG_EVERY == 0:
                means = {name: round(value / LOG_EVERY, 4) for name, value in sums.items()}
                seconds = round(time.monotonic() - began, 1)
                self._log(means | {"seconds": seconds, "clips": len(self._lessons)})
                sums, began = {}, time.monotonic()
            if time.monotonic() - saved > SAVE_EVERY_S:
                self._save()
                saved = time.monotonic()
        self._save()
        return self.step >= self.plan.steps

    def finish(self) -> None:
        """Write the averaged weights as a checkpoint in upstream's layout."""
        with Swapped(self.network, self.averaged):
            export(self.network, self.pieces_file, self.cmvn, self.plan.out)

    def _batches(self) -> Iterator[sense_data.SenseBatch]:
        """Yield batches endlessly. Each pass uses the clips that have been made by then."""
        for index in range(10**9):
            self._listen()
            if self.stopping:
                return
            rng = random.Random(f"{self.plan.seed}/{self.step}/{index}")
            for lessons in sense_data.split_batches(self._lessons, rng):
                numbers = np.random.default_rng(rng.getrandbits(63))
                yield sense_data.collate(lessons, self.pieces, self.cmvn, numbers)

    def _listen(self) -> None:
        while self._heard < self.plan.shards and not self.stopping:
            if self._heard >= SHARDS_AT_FIRST and not data.shard_path(self._shards, self._heard).exists():
                return
            self._lessons += self._lecturer(self._wait_for(self._heard))
            self._heard += 1

    def _wait_for(self, shard: int) -> list[data.Clip]:
        path = data.shard_path(self._shards, shard)
        while not path.exists():
            if not self._producer.is_alive() and not path.exists():
                raise RuntimeError("the process that makes the clips has ended")
            time.sleep(0.5)
        return data.read_shard(path)

    def _train_step(self, batch: sense_data.SenseBatch) -> dict[str, float]:
        plan = self.plan
        left = (plan.steps - self.step) / (plan.steps * (1 - STEADY_SHARE))
        rate = plan.rate * min(1.0, (self.step + 1) / WARM_UP_STEPS, left)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast("cpu", torch.bfloat16):
            logits = self.network(batch.features, batch.lengths, batch.queries)
        log_probs = logits.float().log_softmax(-1)
        heard = log_probs[:, QUERIES:]
        chosen = heard.gather(2, batch.labels)  # (B, T, 4)
        taught = -(chosen * batch.probabilities).sum(-1) * batch.taught
        losses = {
            "ctc": (CTC_WEIGHT, ctc_loss(heard, batch.lengths, batch.targets)),
            "teacher": (TEACHER_WEIGHT, taught.sum() / batch.taught.sum().clamp_min(1)),
            "tags": (TAGS_WEIGHT, F.nll_loss(log_probs[:, :QUERIES].flatten(0, 1), batch.tags.flatten())),
        }
        torch.stack([weight * loss for weight, loss in losses.values()]).sum().backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        keep = min(AVERAGING, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(self.averaged, [p.detach() for p in self.network.parameters()], 1 - keep)
        return {name: loss.item() for name, (_, loss) in losses.items()} | {"rate": rate}

    def _save(self) -> None:
        state = {
            "network": self.network.state_dict(), "optimizer": self.optimizer.state_dict(),
            "averaged": self.averaged, "step": self.step,
        }  # fmt: skip
        part = self._checkpoint.with_suffix(".part")
        torch.save(state, part)
        part.rename(self._checkpoint)

    def _load(self) -> None:
        state = torch.load(self._checkpoint, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.averaged, self.step = state["averaged"], state["step"]

    def _log(self, values: dict[str, float]) -> None:
        line = json.dumps({"step": self.step} | values)
        print(line, flush=True)
        with (self.plan.state / "log.jsonl").open("a") as log:
            log.write(line + "\n")


def train(plan: SensePlan) -> None:
    """Start or resume training, and write the checkpoint."""
    torch.set_num_threads(plan.threads)
    began = time.monotonic()
    trainer = SenseTrainer(plan)
    if trainer.run():
        trainer.finish()
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"{(time.monotonic() - began) / 60:.1f} minutes; load averages of 1, 5 and 15 minutes: {load}")
