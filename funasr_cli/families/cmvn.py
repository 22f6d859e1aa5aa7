"""The CMVN file of a FunASR checkpoint, and of a model converted from one."""

from collections.abc import Mapping
from pathlib import Path, PureWindowsPath

from funasr_cli.checkpoints import funasr
from funasr_cli.checkpoints.untrusted import DAMAGED_HINT, file_in, read_limited, unreadable
from funasr_cli.checkpoints.values import Options, section, stated_in, value
from funasr_cli.features.cmvn import CMVN

CMVN_FILE = "am.mvn"
LIMIT_BYTES = 1 << 20  # in the releases, the file has 11 kB
MISSING_HINT = "the model normalises its features with this file: copy it as well"


def cmvn_file(folder: Path, options: Options) -> Path:
    """Find the CMVN file in a FunASR folder, by the `options` in its ``config.yaml``.

    Only the file's name counts, since upstream trains with absolute paths.
    """
    with stated_in(str(folder / funasr.UPSTREAM_CONFIG)):
        conf = section(options, "frontend_conf")
        stated = None if conf.get("cmvn_file") is None else PureWindowsPath(value(conf, "cmvn_file", str)).name
    return file_in(
        folder, funasr.stated_file(folder, "frontend_conf", "cmvn_file") or stated or CMVN_FILE, MISSING_HINT
    )


def read_cmvn(files: Mapping[str, Path], row_width: int) -> CMVN:
    """Read the CMVN file of a checkpoint; raise a `ModelError` if it is damaged or belongs to another model."""
    path = files[CMVN_FILE]
    content = read_limited(path, LIMIT_BYTES)
    try:
        return CMVN.parse(content.decode("ascii"), row_width)
    except ValueError as error:
        raise unreadable(path, error, DAMAGED_HINT) from error
