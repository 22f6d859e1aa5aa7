"""The tokenizer's files, which lie in every layout."""

from pathlib import Path

from funasr_cli.checkpoints.format import TOKENIZER_FILE
from funasr_cli.checkpoints.untrusted import file_in, optional_file_in

OF_THE_DECODER = "copy it from the decoder's own repository"
GENERATION_FILE = "generation_config.json"
OPTIONAL_TOKENIZER_FILES = ("tokenizer_config.json", "vocab.json", "merges.txt", GENERATION_FILE)


def tokenizer_files(root: Path, folder: Path) -> dict[str, Path]:
    """By name; only tokenizer.json has to be there.

    Args:
        root: the checkpoint's folder.
        folder: where they lie, in it.

    Raises:
        ModelError: there is no tokenizer.
    """
    inside = folder.relative_to(root)
    tokenizer = file_in(root, (inside / TOKENIZER_FILE).as_posix(), OF_THE_DECODER)
    found = {name: optional_file_in(root, (inside / name).as_posix()) for name in OPTIONAL_TOKENIZER_FILES}
    return {TOKENIZER_FILE: tokenizer} | {name: path for name, path in found.items() if path}
