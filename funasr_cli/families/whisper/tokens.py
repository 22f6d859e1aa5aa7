"""Whisper's vocabulary: tokens of bytes, and special tokens, which are known by name.

Source: openai-whisper ``whisper/tokenizer.py``. The two vocabularies are its ``multilingual.tiktoken`` and
``gpt2.tiktoken``, compressed (MIT licence, OpenAI). What differs: of a ``tokenizer.json``, only the tokens are
read, since merges follow from their order. Some of these files lack the first merge, or the time tokens.
"""

import base64
import json
import lzma
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from funasr_cli.checkpoints.checkpoint import read_small_json
from funasr_cli.checkpoints.untrusted import DAMAGED_HINT, read_json, unreadable
from funasr_cli.checkpoints.vocabularies import TOKENIZER_LIMIT_BYTES, VOCABULARY_HINT
from funasr_cli.errors import ModelError
from funasr_cli.families.whisper.config import ENGLISH_VOCABULARY, LANGUAGE_TOKENS, TOKEN_OF
from funasr_cli.vocabulary import BYTES, CHARACTERS, TAG, CTCVocabulary

TOKENS_FILE = "whisper_tokens.json"  # in a converted model
TIME_STEP_S, TIMES = 0.02, 1501
END, START, PREVIOUS, NO_SPEECH, NO_TIMES = (
    "endoftext", "startoftranscript", "startofprev", "nospeech", "notimestamps",
)  # fmt: skip
TRANSLATE, TRANSCRIBE, START_LM = "translate", "transcribe", "startoflm"
REQUIRED = (END, START, TRANSLATE, TRANSCRIBE, START_LM, PREVIOUS, NO_SPEECH, NO_TIMES)
# Annotations rather than speech: never written.
SYMBOLS = (
    *'"#()*+/:;<=>@[\\]^_`{|}~「」『』',
    *"<< >> <<< >>> -- --- -( -[ (' (\" (( )) ((( ))) [[ ]] {{ }} ♪♪ ♪♪♪".split(),
)
NOTES = "♩♪♫♬♭♮♯"  # spelled with several tokens, of which the first is excluded


class WhisperVocabulary(CTCVocabulary):
    """Vocabulary of the decoder, to decode token ids and encode text.

    Attributes:
        special: ids by name, without the marks around it, such as "en" or "startoftranscript".
        first_time: id of the token for 0.00 s; the others follow.
        never: ids that are never written, such as annotations of sounds.
        blank: ids that a text does not begin with: a space by itself, and the end.
    """

    def __init__(self, tokens: Mapping[str, int], special: Mapping[str, int]):
        self._bytes = {token_id: bytes(map(BYTES.__getitem__, token)) for token, token_id in tokens.items()}
        self.special = special
        self.end, self.first_time = special[END], special["0.00"]
        self.blank = (*self.encode(" "), self.end)
        alone = [self.encode(f"{space}{symbol}") for symbol in SYMBOLS for space in ("", " ")]
        excluded = {ids[0] for ids in alone if len(ids) == 1} | {self.encode(mark)[0] for mark in (" -", " '")}
        excluded |= {self.encode(f"{space}{note}")[0] for note in NOTES for space in ("", " ")}
        excluded |= {special[name] for name in (START, TRANSLATE, TRANSCRIBE, START_LM, PREVIOUS, NO_SPEECH)}
        self.never = tuple(sorted(excluded))

    def language_ids(self, languages: Sequence[str]) -> list[int]:
        """Return the tokens of languages, given their ISO codes."""
        return [self.special[TOKEN_OF[code]] for code in languages]


def bundled(vocab_size: int) -> tuple[dict[str, int], dict[str, int]]:
    """Return the tokens and special tokens of OpenAI's models with this number of embeddings."""
    is_english = vocab_size <= ENGLISH_VOCABULARY
    path = Path(__file__).with_name(f"{'gpt2' if is_english else 'multilingual'}.tiktoken.xz")
    pairs = (line.split() for line in lzma.decompress(path.read_bytes()).splitlines())
    tokens = {"".join(map(CHARACTERS.__getitem__, base64.b64decode(token))): int(rank) for token, rank in pairs}
    count = vocab_size - len(tokens) - len(REQUIRED) - TIMES  # of languages
    names = (END, START, *LANGUAGE_TOKENS[:count], *REQUIRED[2:])
    return tokens, completed({name: len(tokens) + place for place, name in enumerate(names)})


def of_tokenizer(path: Path) -> tuple[dict[str, int], dict[str, int]]:
    """Return the tokens and special tokens in a ``tokenizer.json``."""
    content = read_json(path, TOKENIZER_LIMIT_BYTES)
    try:
        special = {
            name[1]: int(each["id"])
            for each in content["added_tokens"]
            if (name := TAG.fullmatch(str(each["content"])))
        }
        ids = set(special.values())  # some files list a special token among the others as well
        tokens = {
            token: number for token, number in _tokens(content["model"]["vocab"]).items() if number not in ids
        }
        return tokens, completed(special)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise unreadable(path, error, DAMAGED_HINT) from error


def completed(special: dict[str, int]) -> dict[str, int]:
    """Add the time tokens, which follow the token for no times, and the newer name of an old token."""
    if "nocaptions" in special:
        special.setdefault(NO_SPEECH, special["nocaptions"])
    first = special.get("0.00", special[NO_TIMES] + 1)
    return special | {f"{step * TIME_STEP_S:.2f}": first + step for step in range(TIMES)}


def to_text(tokens: Mapping[str, int], special: Mapping[str, int]) -> str:
    """Return the content of `TOKENS_FILE`."""
    return json.dumps({"tokens": tokens, "special": special}, ensure_ascii=False, indent=0)


def read_vocabulary(
    files: Mapping[str, Path], texts: Mapping[str, str], vocab_size: int, languages: Sequence[str]
) -> WhisperVocabulary:
    """Read `TOKENS_FILE` from a file, or from text that has not been written yet.

    Raises:
        ModelError: it is damaged, lacks a token that the prompt needs, or has more tokens than the model.
    """
    where = files.get(TOKENS_FILE, Path(TOKENS_FILE))
    content = read_small_json(files, texts, TOKENS_FILE, TOKENIZER_LIMIT_BYTES)
    try:
        tokens, special = _tokens(content["tokens"]), _tokens(content["special"])
        needed = {*REQUIRED, *(TOKEN_OF[code] for code in languages if len(languages) > 1), "0.00", "30.00"}
        problem = f"lacks <|{min(needed - special.keys())}|>" if needed - special.keys() else ""
        highest = max([*tokens.values(), *special.values()])
        if highest >= vocab_size:
            problem = f"has token {highest}, but the decoder has only {vocab_size} tokens"
        if problem:
            raise ModelError(f"{where}: {problem}", VOCABULARY_HINT, code="tokenizer-mismatch")
        return WhisperVocabulary(tokens, special)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise unreadable(where, error, DAMAGED_HINT) from error


def _tokens(content: Any) -> dict[str, int]:
    """Check a table of ids by token, which may come from a stranger's file."""
    tokens = dict(content)
    if not all(type(token_id) is int and token_id >= 0 for token_id in tokens.values()):
        raise ValueError("a token's id is not a whole number")
    return tokens
