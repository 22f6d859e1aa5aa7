"""What every folder of FunASR has in common, of releases and fine-tunes: ``model.pt``, ``config.yaml``, and more.

Which model is in it, ``config.yaml`` says; the reader of that family takes it from there.
"""

from pathlib import Path, PureWindowsPath

from funasr_cli.checkpoints.pickles import require_torch
from funasr_cli.checkpoints.untrusted import file_in, optional_file_in, quoted, read_json, read_yaml, readable
from funasr_cli.checkpoints.values import Misstated, Options, section, stated_in

LAYOUT = "FunASR"
UPSTREAM_WEIGHTS = "model.pt"
UPSTREAM_CONFIG = "config.yaml"
PLACES_FILE = "configuration.json"
NO_CONFIG = f"FunASR writes one beside {UPSTREAM_WEIGHTS}: copy it, or that of the model that was fine-tuned"
NO_WEIGHTS = f"the weights belong beside {UPSTREAM_CONFIG}: copy or download them, too"


def read_config(folder: Path) -> tuple[Path, Options]:
    """Read ``config.yaml``, and return its path, too; refuse at once where torch is missing."""
    require_torch()
    path = file_in(folder, UPSTREAM_CONFIG, NO_CONFIG)
    return path, read_yaml(path)


def weights_file(folder: Path) -> Path:
    """Find those that ``configuration.json`` states, or ``model.pt``, or say what to do where there are none."""
    stated = stated_file(folder, "init_param")
    path = optional_file_in(folder, of_another_machine(stated)) if stated else None
    return path or file_in(folder, UPSTREAM_WEIGHTS, _instead_of_weights(folder))


def of_another_machine(stated: str) -> str:
    """Cut an absolute path, as trainers write them, to the file's name."""
    path = PureWindowsPath(stated)  # which takes both kinds of slashes
    return path.name if path.anchor else stated


def stated_file(folder: Path, *keys: str) -> str | None:
    """Return the name of a file that ``configuration.json`` states below ``file_path_metas``, for `file_in`.

    What it says goes before ``config.yaml``: in releases, that says null where files are named here, as in
    ``stated_file(folder, "frontend_conf", "cmvn_file")``. None where nothing is stated.
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
            raise Misstated(f"{'.'.join(keys)} is {quoted(name)}, not a name", code="model-config")
        return name


def _instead_of_weights(folder: Path) -> str:
    """What to do where there are none: upstream's trainer writes ``model.pt.best``, ``model.pt.ep3`` and so on."""
    written = sorted(path.name for path in folder.glob(f"{UPSTREAM_WEIGHTS}.*"))
    best = f"{UPSTREAM_WEIGHTS}.best"
    if not written:
        return NO_WEIGHTS
    found = readable(best if best in written else written[0])
    return f"rename the one you want to {UPSTREAM_WEIGHTS}, as in: mv {found} {UPSTREAM_WEIGHTS}"
