"""The CMVN file that goes with a checkpoint of FunASR's, and with what is converted from it."""

from collections.abc import Mapping
from pathlib import Path, PureWindowsPath

from funasr_cli.checkpoints import funasr
from funasr_cli.checkpoints.untrusted import DAMAGED_HINT, file_in, read_limited, unreadable
from funasr_cli.checkpoints.values import Options, section, stated_in, value
from funasr_cli.features.cmvn import CMVN

CMVN_FILE = "am.mvn"
LIMIT_BYTES = 1 << 20  # the releases' have 11 kB
MISSING = "features are normalised with it: copy it, too"


def cmvn_file(folder: Path, options: Options) -> Path:
    """Find it in FunASR's folder, whose ``config.yaml`` says this; upstream trains with absolute paths."""
    with stated_in(str(folder / funasr.UPSTREAM_CONFIG)):
        conf = section(options, "frontend_conf")
        stated = None if conf.get("cmvn_file") is None else PureWindowsPath(value(conf, "cmvn_file", str)).name
    return file_in(
        folder, funasr.stated_file(folder, "frontend_conf", "cmvn_file") or stated or CMVN_FILE, MISSING
    )


def read_cmvn(files: Mapping[str, Path], row_width: int) -> CMVN:
    """Read it out of the files of a checkpoint; a `ModelError` where it is damaged or another model's."""
    path = files[CMVN_FILE]
    content = read_limited(path, LIMIT_BYTES)
    try:
        return CMVN.parse(content.decode("ascii"), row_width)
    except ValueError as error:
        raise unreadable(path, error, DAMAGED_HINT) from error
