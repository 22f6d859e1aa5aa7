"""Files common to all FunASR folders, of releases and fine-tuned models: ``model.pt``, ``config.yaml`` and others.

``config.yaml`` names the model; the reader of that model's family reads the rest.
"""

from pathlib import Path, PureWindowsPath

from funasr_cli.checkpoints.pickles import require_torch
from funasr_cli.checkpoints.untrusted import file_in, optional_file_in, quoted, read_json, read_yaml, readable
from funasr_cli.checkpoints.values import Misstated, Options, section, stated_in

LAYOUT = "FunASR"
UPSTREAM_WEIGHTS = "model.pt"
UPSTREAM_CONFIG = "config.yaml"
PLACES_FILE = "configuration.json"
NO_CONFIG = f"FunASR writes it next to {UPSTREAM_WEIGHTS}: copy it, or copy the one of the fine-tuned base model"
NO_WEIGHTS = f"copy or download the weights into the folder of {UPSTREAM_CONFIG}"


def read_config(folder: Path) -> tuple[Path, Options]:
    """Read ``config.yaml`` and return its path and content. Fail early if torch is missing."""
    require_torch(UPSTREAM_WEIGHTS)
    path = file_in(folder, UPSTREAM_CONFIG, NO_CONFIG)
    return path, read_yaml(path)


def weights_file(folder: Path) -> Path:
    """Return the weights file that ``configuration.json`` names, or else ``model.pt``; raise if neither exists."""
    stated = stated_file(folder, "init_param")
    path = optional_file_in(folder, portable_name(stated)) if stated else None
    return path or file_in(folder, UPSTREAM_WEIGHTS, _instead_of_weights(folder))


def portable_name(stated: str) -> str:
    """Reduce an absolute path, which trainers write, to its file name."""
    path = PureWindowsPath(stated)  # accepts both kinds of slashes
    return path.name if path.anchor else stated


def stated_file(folder: Path, *keys: str) -> str | None:
    """Return a file name that ``configuration.json`` states below ``file_path_metas``, or None.

    It takes precedence over ``config.yaml``, which is null in releases where this file names one, as in
    ``stated_file(folder, "frontend_conf", "cmvn_file")``. Open the result with `file_in`.
    """
    path = optional_file_in(folder, PLACES_FILE)
    if path is None:
        return None
    with stated_in(str(path)):
        places = section(read_json(path), "file_path_metas")
        for key in keys[:-1]:
            places = section(places, key)
        name = places.get(keys[-1])
        if name is not None and not isinstance(name, str):
            raise Misstated(f"{'.'.join(keys)} is {quoted(name)}, not a file name", code="model-config")
        return name


def _instead_of_weights(folder: Path) -> str:
    """Return the hint for missing weights. Upstream's trainer writes ``model.pt.best``, ``model.pt.ep3`` etc."""
    written = sorted(path.name for path in folder.glob(f"{UPSTREAM_WEIGHTS}.*"))
    best = f"{UPSTREAM_WEIGHTS}.best"
    if not written:
        return NO_WEIGHTS
    found = readable(best if best in written else written[0])
    return f"rename the one you want to {UPSTREAM_WEIGHTS}, for example: mv {found} {UPSTREAM_WEIGHTS}"
