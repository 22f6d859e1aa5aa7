"""Whether a checkpoint's tokenizer knows what the prompt and the decoder need."""

from collections.abc import Iterator

from funasr_cli.checkpoints.checkpoint import Checkpoint
from funasr_cli.checkpoints.format import CTC_VOCABULARY_FILE, TOKENIZER_FILE
from funasr_cli.checkpoints.untrusted import read_ctc_vocabulary, read_tokenizer
from funasr_cli.vocabulary import MARKS


def vocabulary_problems(checkpoint: Checkpoint) -> Iterator[str]:
    """The tokenizer has to know the marks of the prompt, and the ids at which a text ends.

    Raises:
        ModelError: it is missing or damaged, or has more tokens than the decoder; or so is the CTC vocabulary.
    """
    tokenizer = read_tokenizer(checkpoint.files[TOKENIZER_FILE], checkpoint.config.llm.vocab_size)
    for mark in MARKS:
        if tokenizer.token_to_id(mark) is None:
            yield f"{TOKENIZER_FILE}: has no token {mark}"
    for token_id in checkpoint.config.stop_token_ids:
        if tokenizer.id_to_token(token_id) is None:
            yield f"{TOKENIZER_FILE}: has no token {token_id}, at which the model stops"
    if checkpoint.config.ctc:
        read_ctc_vocabulary(checkpoint.files[CTC_VOCABULARY_FILE])
