"""FunASR's layout of releases and fine-tuned models: ``model.pt``, ``config.yaml`` and the decoder's folder."""

from pathlib import Path
from typing import Any

from funasr_cli.checkpoints import adapters, funasr, keymap
from funasr_cli.checkpoints.checkpoint import Checkpoint
from funasr_cli.checkpoints.format import CTC_VOCABULARY_FILE, DECODER_HINT, tokenizer_files
from funasr_cli.checkpoints.pickles import read_state_dict
from funasr_cli.checkpoints.tensors import usual_dtype
from funasr_cli.checkpoints.untrusted import file_in, read_json
from funasr_cli.checkpoints.values import Misstated, Options, section, stated_in
from funasr_cli.families.fun_asr_nano import names
from funasr_cli.families.fun_asr_nano.config import languages_of
from funasr_cli.families.fun_asr_nano.upstream import nano_config


def open_funasr(folder: Path, options: Options, name: str) -> Checkpoint:
    """Open a folder in this layout, given the content of its ``config.yaml``. `name` determines the languages."""
    path = folder / funasr.UPSTREAM_CONFIG
    with stated_in(str(path)):
        llm_folder = _llm_folder(options)
    weights = funasr.weights_file(folder)
    llm_path = file_in(folder, f"{llm_folder}/config.json", DECODER_HINT)
    llm = read_json(llm_path)
    files = tokenizer_files(folder, folder / llm_folder)
    with stated_in(str(path)):
        stored, adapter = adapters.split(read_state_dict(weights), section(options, "llm_conf"), str(weights))
    has_ctc, languages = names.has_ctc(stored), languages_of(name)
    config = nano_config(options, llm, ctc=has_ctc, languages=languages, where=str(path), llm_where=str(llm_path))
    if config.ctc is not None:
        files[CTC_VOCABULARY_FILE] = file_in(folder, CTC_VOCABULARY_FILE, "the CTC branch needs it")
    checkpoint = Checkpoint(
        layout=funasr.LAYOUT,
        config=config,
        dtype=usual_dtype(stored),
        tensors=keymap.translate(stored, names.FUNASR, str(weights), tied=names.tied(config)),
        files=files,
        weights=(weights,),
    )
    return adapters.apply(checkpoint, adapter, names.tied(config)) if adapter else checkpoint


def _llm_folder(options: dict[str, Any]) -> str:
    """Return the name of the decoder's folder. Only the last part counts, since upstream uses absolute paths."""
    stated = section(options, "llm_conf").get("init_param_path")
    if not isinstance(stated, str) or Path(stated).name in ("", ".", ".."):
        raise Misstated("llm_conf.init_param_path does not name the decoder's folder", code="model-config")
    return Path(stated).name
