"""Whisper's vocabulary: tokens of bytes, and special tokens, which are known by name.

Source: openai-whisper ``whisper/tokenizer.py``. The two vocabularies are its ``multilingual.tiktoken`` and
``gpt2.tiktoken``, compressed (MIT licence, OpenAI). What differs: of a ``tokenizer.json``, only the tokens are
read, since some of these files lack the first merge, or the time tokens.
"""

import base64
import lzma
from collections.abc import Mapping, Sequence
from pathlib import Path

from funasr_cli.checkpoints import byte_tokens
from funasr_cli.checkpoints.byte_tokens import Tables
from funasr_cli.checkpoints.vocabularies import VOCABULARY_HINT
from funasr_cli.decoding.time_tokens import TIME_STEP_S
from funasr_cli.errors import ModelError
from funasr_cli.languages import WHISPER_TOKEN_OF, WHISPER_TOKENS
from funasr_cli.vocabulary import CHARACTERS, TimedVocabulary

TOKENS_FILE = "whisper_tokens.json"  # in a converted model
ENGLISH_VOCABULARY = 51864  # number of tokens of the .en models; others have more
TIMES = 1501
END, START, PREVIOUS, NO_SPEECH, NO_TIMES = (
    "endoftext", "startoftranscript", "startofprev", "nospeech", "notimestamps",
)  # fmt: skip
TRANSLATE, TRANSCRIBE, START_LM = "translate", "transcribe", "startoflm"
CONTROLS = (START, TRANSLATE, TRANSCRIBE, START_LM, PREVIOUS, NO_SPEECH)
# Annotations rather than speech: never written.
SYMBOLS = (
    *'"#()*+/:;<=>@[\\]^_`{|}~「」『』',
    *"<< >> <<< >>> -- --- -( -[ (' (\" (( )) ((( ))) [[ ]] {{ }} ♪♪ ♪♪♪".split(),
)
NOTES = "♩♪♫♬♭♮♯"  # spelled with several tokens, of which the first is excluded


class WhisperVocabulary(TimedVocabulary):
    """Vocabulary of the decoder.

    Attributes:
        never: ids that are never written, such as annotations of sounds.
        blank: ids that a text does not begin with: a space by itself, and the end.
    """

    def __init__(self, tokens: Mapping[str, int], special: Mapping[str, int]):
        super().__init__(tokens, special)
        self.end, self.first_time = special[END], special["0.00"]
        self.blank = (*self.encode(" "), self.end)
        alone = [self.encode(f"{space}{symbol}") for symbol in SYMBOLS for space in ("", " ")]
        excluded = {ids[0] for ids in alone if len(ids) == 1} | {self.encode(mark)[0] for mark in (" -", " '")}
        excluded |= {self.encode(f"{space}{note}")[0] for note in NOTES for space in ("", " ")}
        self.never = tuple(sorted(excluded.union(special[name] for name in CONTROLS)))


def bundled(vocab_size: int) -> Tables:
    """Return the tokens and special tokens of OpenAI's models with this number of embeddings."""
    name = "gpt2" if vocab_size <= ENGLISH_VOCABULARY else "multilingual"
    pairs = (
        line.split()
        for line in lzma.decompress(Path(__file__).with_name(f"{name}.tiktoken.xz").read_bytes()).splitlines()
    )
    tokens = {"".join(map(CHARACTERS.__getitem__, base64.b64decode(token))): int(rank) for token, rank in pairs}
    count = vocab_size - len(tokens) - len((END, *CONTROLS, NO_TIMES)) - TIMES  # of languages
    names = (END, START, *WHISPER_TOKENS[:count], *CONTROLS[1:], NO_TIMES)
    return tokens, completed({name: len(tokens) + place for place, name in enumerate(names)})


def completed(special: Mapping[str, int]) -> dict[str, int]:
    """Add the time tokens, which follow the token for no times, and the newer name of an old token."""
    renamed = {NO_SPEECH: special["nocaptions"]} if "nocaptions" in special else {}
    first = special.get("0.00", special[NO_TIMES] + 1)
    return {**renamed, **special, **{f"{step * TIME_STEP_S:.2f}": first + step for step in range(TIMES)}}


def of_tokenizer(path: Path) -> Tables:
    """Return the tokens and special tokens in a ``tokenizer.json``; raise a `ModelError` for another model's."""
    tokens, special = byte_tokens.of_tokenizer(path)
    if NO_TIMES not in special:
        raise ModelError(f"{path}: lacks <|{NO_TIMES}|>", VOCABULARY_HINT, code="tokenizer-mismatch")
    return tokens, completed(special)


def read_vocabulary(
    files: Mapping[str, Path], texts: Mapping[str, str], vocab_size: int, languages: Sequence[str]
) -> WhisperVocabulary:
    """Read `TOKENS_FILE`; see `byte_tokens.read_tables`."""
    spoken = [WHISPER_TOKEN_OF[code] for code in languages if len(languages) > 1]
    required = (END, *CONTROLS, NO_TIMES, *spoken, "0.00", "30.00")
    return WhisperVocabulary(*byte_tokens.read_tables(TOKENS_FILE, files, texts, vocab_size, required))
