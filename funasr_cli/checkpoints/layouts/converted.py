"""What `convert` writes."""

from pathlib import Path

from funasr_cli.checkpoints import keymap
from funasr_cli.checkpoints.checkpoint import Checkpoint
from funasr_cli.checkpoints.format import CTC_VOCABULARY_FILE, WEIGHTS_FILE, read_config, tokenizer_files
from funasr_cli.checkpoints.tensors import open_safetensors
from funasr_cli.checkpoints.untrusted import DAMAGED_HINT, file_in

LAYOUT = "funasr-cli"


def open_converted(folder: Path) -> Checkpoint:
    """Open a converted folder."""
    model = read_config(folder)
    weights, tied = file_in(folder, WEIGHTS_FILE, DAMAGED_HINT), model.config.llm.tie_word_embeddings
    files = tokenizer_files(folder, folder)
    if model.config.ctc is not None:
        files[CTC_VOCABULARY_FILE] = file_in(folder, CTC_VOCABULARY_FILE)
    return Checkpoint(
        layout=LAYOUT,
        config=model.config,
        dtype=model.dtype,
        tensors=keymap.translate(open_safetensors(weights), keymap.OURS, str(weights), tied=tied),
        quantization=model.quantization,
        files=files,
        weights=(weights,),
        source=model.source,
    )
