"""FunASR's layout, of releases and fine-tunes: ``model.pt``, ``config.yaml`` and the decoder's folder."""

from pathlib import Path
from typing import Any

from funasr_cli.checkpoints import keymap
from funasr_cli.checkpoints.checkpoint import Checkpoint
from funasr_cli.checkpoints.format import CTC_VOCABULARY_FILE, OF_THE_DECODER, tokenizer_files
from funasr_cli.checkpoints.pickles import read_state_dict, require_torch
from funasr_cli.checkpoints.tensors import usual_dtype
from funasr_cli.checkpoints.untrusted import file_in, read_json, read_yaml, readable
from funasr_cli.checkpoints.values import Misstated, require, section, stated_in
from funasr_cli.families.fun_asr_nano.upstream import MODEL, nano_config

LAYOUT = "FunASR"
UPSTREAM_WEIGHTS = "model.pt"
UPSTREAM_CONFIG = "config.yaml"
NO_CONFIG = f"FunASR writes one beside {UPSTREAM_WEIGHTS}: copy it, or that of the model that was fine-tuned"
NO_WEIGHTS = f"the weights belong beside {UPSTREAM_CONFIG}: copy or download them, too"


def open_funasr(folder: Path, languages: tuple[str, ...]) -> Checkpoint:
    """Open a folder in this layout."""
    require_torch()
    path = file_in(folder, UPSTREAM_CONFIG, NO_CONFIG)
    options = read_yaml(path)
    with stated_in(str(path)):
        require(options, "model", MODEL)  # or else what is missing for ours would be said of another model
        llm_folder = _llm_folder(options)
    weights = file_in(folder, UPSTREAM_WEIGHTS, _instead_of_weights(folder))
    llm_path = file_in(folder, f"{llm_folder}/config.json", OF_THE_DECODER)
    llm = read_json(llm_path)
    files = tokenizer_files(folder, folder / llm_folder)
    stored = read_state_dict(weights)
    config = nano_config(
        options, llm, ctc=keymap.has_ctc(stored), languages=languages, where=str(path), llm_where=str(llm_path)
    )
    if config.ctc is not None:
        files[CTC_VOCABULARY_FILE] = file_in(folder, CTC_VOCABULARY_FILE, "the CTC branch needs it")
    return Checkpoint(
        layout=LAYOUT,
        config=config,
        dtype=usual_dtype(stored),
        tensors=keymap.translate(stored, keymap.FUNASR, str(weights), tied=config.llm.tie_word_embeddings),
        files=files,
        weights=(weights,),
    )


def _instead_of_weights(folder: Path) -> str:
    """What to do where there are none: upstream's trainer writes ``model.pt.best``, ``model.pt.ep3`` and so on."""
    written = sorted(path.name for path in folder.glob(f"{UPSTREAM_WEIGHTS}.*"))
    best = f"{UPSTREAM_WEIGHTS}.best"
    if not written:
        return NO_WEIGHTS
    found = readable(best if best in written else written[0])
    return f"rename the one you want to {UPSTREAM_WEIGHTS}, as in: mv {found} {UPSTREAM_WEIGHTS}"


def _llm_folder(options: dict[str, Any]) -> str:
    """Name of the decoder's folder; upstream trains with absolute paths, so that only the last part counts."""
    stated = section(options, "llm_conf").get("init_param_path")
    if not isinstance(stated, str) or Path(stated).name in ("", ".", ".."):
        raise Misstated("llm_conf.init_param_path does not name the decoder's folder", code="model-config")
    return Path(stated).name
