"""Export a converted model back to FunASR's layout, so that the PyTorch reference can read it."""

import shutil
from pathlib import Path

import yaml

from funasr_cli.checkpoints import format as files
from funasr_cli.checkpoints.funasr import UPSTREAM_CONFIG, UPSTREAM_WEIGHTS
from funasr_cli.checkpoints.keymap import FSMN_SUFFIX
from funasr_cli.checkpoints.pickles import CONTAINERS, require_torch
from funasr_cli.errors import ModelError, OutputError
from funasr_cli.families.converted import read_config
from funasr_cli.families.fun_asr_nano.names import EMBEDDING, LM_HEAD
from funasr_cli.families.fun_asr_nano.upstream import LLM_FOLDER, upstream_options


def export(folder: Path, out: Path) -> None:
    """Write an unquantized converted model in FunASR's layout to a new folder. No value changes.

    Raises:
        ModelError: not a converted model, or a quantized one, which has lost its dense values.
        OutputError: ``out`` exists or cannot be written.
        SetupError: torch is not installed.
    """
    require_torch(UPSTREAM_WEIGHTS, "writing")
    model = read_config(folder)
    if model.quantization:
        message = f"{folder}: is quantized and has no dense weights"
        raise ModelError(message, "export a dense conversion", code="model-quantized")
    if out.exists():
        raise OutputError(f"{out}: exists already", "name another folder", code="output-exists")
    options, llm_options = upstream_options(model.config, LLM_FOLDER)
    try:
        (out / LLM_FOLDER).mkdir(parents=True)
        _write_tensors(folder, out, tied=model.config.llm.tie_word_embeddings)
        (out / UPSTREAM_CONFIG).write_text(yaml.safe_dump(options, sort_keys=False), encoding="utf-8")
        files.write_json(out / LLM_FOLDER / files.CONFIG_FILE, llm_options | {"torch_dtype": model.dtype})
        llm = {"init_param_path": LLM_FOLDER}
        places = {  # paths of the parts, relative to the folder
            "init_param": UPSTREAM_WEIGHTS, "config": UPSTREAM_CONFIG, "tokenizer_conf": llm, "llm_conf": llm,
            "dataset_conf": {"ctc_tokenizer_conf": {"vocab_path": files.CTC_VOCABULARY_FILE}},
        }  # fmt: skip
        task = {"framework": "pytorch", "task": "auto-speech-recognition"}
        files.write_json(out / "configuration.json", task | {"file_path_metas": places})
        for name in (files.TOKENIZER_FILE, *files.OPTIONAL_TOKENIZER_FILES):
            if (folder / name).exists():
                shutil.copyfile(folder / name, out / LLM_FOLDER / name)
        if (folder / files.CTC_VOCABULARY_FILE).exists():
            shutil.copyfile(folder / files.CTC_VOCABULARY_FILE, out / files.CTC_VOCABULARY_FILE)
    except OSError as error:
        shutil.rmtree(out, ignore_errors=True)
        raise OutputError(f"{out}: cannot be written ({error})", code="output-unwritable") from error


def _write_tensors(folder: Path, out: Path, tied: bool) -> None:
    import torch
    from safetensors.torch import load_file

    tensors: dict[str, torch.Tensor] = {
        name: (tensor.transpose(-1, -2) if name.endswith(FSMN_SUFFIX) else tensor).contiguous()
        for name, tensor in load_file(folder / files.WEIGHTS_FILE).items()
    }
    if tied:  # upstream's state dicts hold both
        tensors[LM_HEAD] = tensors[EMBEDDING]
    torch.save({CONTAINERS[0]: tensors}, out / UPSTREAM_WEIGHTS)
