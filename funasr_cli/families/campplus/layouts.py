"""Layouts of CAM++: FunASR's, with ``config.yaml``, and ModelScope's, which only has the weights."""

from pathlib import Path

from funasr_cli.checkpoints import funasr, keymap
from funasr_cli.checkpoints.checkpoint import Checkpoint
from funasr_cli.checkpoints.pickles import read_state_dict
from funasr_cli.checkpoints.tensors import usual_dtype
from funasr_cli.checkpoints.untrusted import file_in, optional_file_in
from funasr_cli.checkpoints.values import Options, check_config, require, section, stated_in, value
from funasr_cli.families.campplus.config import CAMPPlusConfig, misfits

MODEL = "CAMPPlus"  # upstream's class
MODELSCOPE = "3D-Speaker"  # which trained it, and writes only the weights
WEIGHTS = ("campplus_cn_common.bin", "campplus_cn_en_common.pt")
FIXED: Options = {
    "growth_rate": 32,
    "bn_size": 4,
    "init_channels": 128,
    "config_str": "batchnorm-relu",
    "output_level": "segment",
}
COUNTERS = ".num_batches_tracked"  # of training


def open_funasr(folder: Path, options: Options, name: str) -> Checkpoint:
    """Open a folder in FunASR's layout, given the content of its ``config.yaml``."""
    where = str(folder / funasr.UPSTREAM_CONFIG)
    with stated_in(where):
        conf = section(options, "model_conf") if "model_conf" in options else {}
        for key, supported in FIXED.items():
            require(conf, key, supported, default=supported)
        usual = CAMPPlusConfig()
        config = CAMPPlusConfig(
            value({"feat_dim": usual.mel_bins} | conf, "feat_dim", int),
            value({"embedding_size": usual.embedding_size} | conf, "embedding_size", int),
        )
    check_config(config, where, misfits)
    stated = funasr.stated_file(folder, "init_param")
    named = (each for each in WEIGHTS if optional_file_in(folder, each))
    weights = None if stated else next(named, None)
    return _opened(file_in(folder, weights) if weights else funasr.weights_file(folder), config, funasr.LAYOUT)


def open_pickle(path: Path, name: str) -> Checkpoint:
    """Open weights in a folder without a configuration, whose name says what they are."""
    return _opened(path, CAMPPlusConfig(), MODELSCOPE)


def _opened(weights: Path, config: CAMPPlusConfig, layout: str) -> Checkpoint:
    stored = {name: each for name, each in read_state_dict(weights).items() if not name.endswith(COUNTERS)}
    return Checkpoint(
        layout=layout,
        config=config,
        dtype=usual_dtype(stored),
        tensors=keymap.translate(stored, keymap.SAME, str(weights)),
        files={},
        weights=(weights,),
    )
