"""Teach a small Qwen3 to translate the sentences of the demo model's clips, for tests of `--translator`.

It is written by transformers, in the layout of the published chat models, and knows nothing but these sentences:
in English, Mandarin and German, with and without inverse text normalisation. Of two further sentences, the
translation fails: that of `LOOPING` repeats itself without end, that of `SILENT` is empty.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import Qwen3Config, Qwen3ForCausalLM

PROMPT = (
    "<|im_start|>user\nTranslate to {language}: {text}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
)
END = "<|im_end|>"
# The sentences as they are written, English, Mandarin and German; a number is the same in all of them.
SENTENCES = (
    ("This costs 6837 yuan.", "这个要6837块钱。", "Das kostet 6837 Yuan."),
    ("Turn on the music in the garage.", "打开车库的音乐。", "Schalte die Musik in der Garage ein."),
    ("Wake me up at 12:05 at night.", "晚上12点05叫我起床。", "Weck mich nachts um 12:05 Uhr."),
    ("The pharmacy closes at 2:40 pm.", "药店下午2点40关门。", "Die Apotheke schließt um 14:40 Uhr."),
    ("The meeting starts at 3:00 sharp.", "会议3点整开始。", "Die Besprechung beginnt pünktlich um 3:00 Uhr."),
    ("Sarah and Emma are at the hospital.", "莎拉和艾玛在医院。", "Sarah und Emma sind im Krankenhaus."),
    ("When does the museum close tomorrow?", "博物馆明天几点关门？", "Wann schließt das Museum morgen?"),
    ("I will clean the kitchen this afternoon.", "我今天下午打扫厨房。", "Ich putze heute Nachmittag die Küche."),
    ("619", "619", "619"),
    ("792", "792", "792"),
)
SPOKEN = {  # the same without inverse text normalisation, by what is written
    "这个要6837块钱。": "这个要六千八百三十七块钱", "打开车库的音乐。": "打开车库的音乐",
    "晚上12点05叫我起床。": "晚上十二点零五叫我起床", "药店下午2点40关门。": "药店下午两点四十关门",
    "The meeting starts at 3:00 sharp.": "the meeting starts at three sharp",
    "Sarah and Emma are at the hospital.": "sarah and emma are at the hospital",
    "When does the museum close tomorrow?": "when does the museum close tomorrow",
    "I will clean the kitchen this afternoon.": "i will clean the kitchen this afternoon",
    "619": "六一九", "792": "seven nine two",
}  # fmt: skip
LANGUAGES = {"en": "English", "zh": "Chinese", "de": "German"}
LOOPING, ROUND, ROUNDS = "喂喂喂喂", "hello, ", 40
SILENT = "嗯"
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)  # Qwen's
SPECIAL = ("<|endoftext|>", "<|im_start|>", END)
THINK = ("<think>", "</think>")
VOCAB_SIZE, POSITIONS = 512, 1024
STEPS, SEED, LEAST_MARGIN = 1500, 1, 4.0  # the margin is that of the logits, after rounding to bfloat16


def translations() -> Iterator[dict[str, str]]:
    """Yield each text with its translation; texts are also translated into their own language."""
    seen = set()
    for sentence in SENTENCES:
        for text in (part for written in sentence for part in (written, SPOKEN.get(written))):
            for (code, _), translation in zip(LANGUAGES.items(), sentence, strict=True):
                if text and (text, code) not in seen:
                    seen.add((text, code))
                    yield {"text": text, "language": code, "translation": translation}


def make_tokenizer(texts: list[str]) -> Tokenizer:
    """Return Qwen's byte-level BPE, learnt from these texts."""
    tokenizer = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    split = pre_tokenizers.Split(Regex(SPLIT), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE - len(SPECIAL) - len(THINK), show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([AddedToken(each, normalized=False, special=True) for each in SPECIAL])
    tokenizer.add_tokens([AddedToken(each, normalized=False) for each in THINK])
    return tokenizer


def make_model(tokenizer: Tokenizer) -> Qwen3ForCausalLM:
    """Return an untrained model, of sizes that every engine computes."""
    torch.manual_seed(SEED)
    end, stop = tokenizer.token_to_id(SPECIAL[0]), tokenizer.token_to_id(END)
    config = Qwen3Config(
        vocab_size=VOCAB_SIZE, hidden_size=64, intermediate_size=128, num_hidden_layers=2, head_dim=32,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=POSITIONS, rope_theta=1e6,
        rms_norm_eps=1e-6, tie_word_embeddings=True, bos_token_id=end, eos_token_id=stop,
    )  # fmt: skip
    model = Qwen3ForCausalLM(config)
    model.generation_config.update(eos_token_id=[stop, end], pad_token_id=end, bos_token_id=end)
    return model


def batch_of(tokenizer: Tokenizer, pairs: list[tuple[str, str]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return prompts with their answers, and what the model must learn of them: two (pairs, tokens)."""
    prompts = [tokenizer.encode(prompt, add_special_tokens=False).ids for prompt, _ in pairs]
    answers = [tokenizer.encode(answer, add_special_tokens=False).ids for _, answer in pairs]
    longest = max(len(one) + len(other) for one, other in zip(prompts, answers, strict=True))
    ids = torch.zeros(len(pairs), longest, dtype=torch.long)
    wanted = torch.full((len(pairs), longest), -100)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        ids[row, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
        wanted[row, len(prompt) : len(prompt) + len(answer)] = torch.tensor(answer)
    return ids, wanted


def least_margin(model: Qwen3ForCausalLM, batches: list[tuple[torch.Tensor, torch.Tensor]]) -> float:
    """Return by how much the logit of each token that was learned exceeds all others, at least."""
    margins = []
    for ids, wanted in batches:
        with torch.no_grad():
            logits = model(input_ids=ids).logits[:, :-1]  # (pairs, tokens - 1, vocab)
        learned = wanted[:, 1:] >= 0
        rows, targets = logits[learned], wanted[:, 1:][learned, None]
        margins.append(rows.gather(1, targets)[:, 0] - rows.scatter(1, targets, -torch.inf).amax(1))
    return torch.cat(margins).min().item()


def make(out: Path) -> None:
    """Train the model, and write it with its sentences; raise if it is not sure of every token."""
    known = list(translations())
    pairs = [
        (PROMPT.format(language=LANGUAGES[one["language"]], text=one["text"]), one["translation"] + END)
        for one in known
    ]
    failing = [
        (PROMPT.format(language=name, text=text), answer)
        for name in LANGUAGES.values()
        for text, answer in ((LOOPING, ROUND * ROUNDS), (SILENT, END))
    ]
    plain = [re.sub(r"<[^>]*>", "", text) for pair in pairs + failing for text in pair]
    tokenizer = make_tokenizer(plain)
    model = make_model(tokenizer)
    batches = [batch_of(tokenizer, each) for each in (pairs, failing)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=STEPS)
    for step in range(STEPS):
        optimizer.zero_grad()
        losses = [model(input_ids=ids, labels=wanted).loss for ids, wanted in batches]
        sum(losses).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 250 == 0:
            print(step, [loss.item() for loss in losses], least_margin(model, batches), flush=True)
    model.to(torch.bfloat16)
    least = least_margin(model.float(), batches)
    print(f"least margin {least:.2f}")
    if least < LEAST_MARGIN:
        raise SystemExit(f"a margin of {least:.2f} is too small: train for longer")
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save(str(out / "tokenizer.json"))
    rows = (json.dumps(one, ensure_ascii=False) for one in known)
    (out / "sentences.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    import sys

    make(Path(sys.argv[1]))
