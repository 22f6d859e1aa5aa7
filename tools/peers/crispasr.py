"""Write the random checkpoint in the format of CrispASR."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tokenizers import pre_tokenizers

from funasr_cli.benchmarks.synthetic import PROMPT_PIECES
from funasr_cli.checkpoints.funasr import UPSTREAM_CONFIG
from funasr_cli.errors import SetupError
from funasr_cli.families.fun_asr_nano.upstream import LLM_FOLDER
from tools.peers.checkpoint import CRISPASR, FUNASR
from tools.peers.engines import TYPES

CONVERT = Path(__file__).with_name("workers") / "convert_crispasr.py"


def write_crispasr(checkpoint: Path, python: Path, converter: Path) -> None:
    """Add CrispASR's files to a checkpoint that has FunASR's layout; keep those that exist.

    Args:
        checkpoint: the folder that `write_checkpoint` wrote.
        python: the interpreter of CrispASR's environment.
        converter: `convert-funasr-to-gguf.py` of CrispASR's repository.

    Raises:
        SetupError: the environment or the converter is missing.
    """
    out, upstream = checkpoint / CRISPASR, checkpoint / FUNASR
    missing = [kind for kind in TYPES if not (out / f"{kind}.gguf").is_file()]
    for needed in (python, converter) if missing else ():
        if not needed.is_file():
            raise SetupError(f"{needed}: not found", "`make bench-peers` sets it up", code="environment-missing")
    (out / LLM_FOLDER).mkdir(parents=True, exist_ok=True)
    shutil.copyfile(upstream / UPSTREAM_CONFIG, out / UPSTREAM_CONFIG)
    shutil.copyfile(upstream / LLM_FOLDER / "config.json", out / LLM_FOLDER / "config.json")
    tokenizer = json.loads((upstream / LLM_FOLDER / "tokenizer.json").read_text(encoding="utf-8"))
    (out / LLM_FOLDER / "tokenizer.json").write_text(json.dumps(with_merges(tokenizer)), encoding="utf-8")
    weights = out / "model.pt"
    weights.unlink(missing_ok=True)
    weights.symlink_to(Path("..") / FUNASR / "model.pt")
    for kind in missing:
        unfinished = out / f"{kind}.unfinished"
        subprocess.run([python, CONVERT, converter, out, unfinished, kind], check=True)
        unfinished.rename(out / f"{kind}.gguf")


def with_merges(tokenizer: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a tokenizer.json whose prompt pieces are built by merges.

    CrispASR finds only special tokens and merges of bytes, so our prompt would be three times as long for it. With
    these merges, its prompt consists of the same tokens.
    """
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    spelled = {piece: level.pre_tokenize_str(piece)[0][0] for piece in PROMPT_PIECES}  # one letter for each byte
    # Pieces that begin with a space first: otherwise " assistant" would lose its letters to "assistant".
    merges = dict.fromkeys(
        f"{word[:end]} {word[end]}"
        for word in sorted(spelled.values(), key=lambda word: not word.startswith("Ġ"))
        for end in range(1, len(word))
    )
    added = [
        token | {"content": spelled.get(token["content"], token["content"])} for token in tokenizer["added_tokens"]
    ]
    return tokenizer | {"added_tokens": added, "model": tokenizer["model"] | {"merges": list(merges)}}
