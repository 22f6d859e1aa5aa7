"""Where FunASR's own PyTorch code is installed."""

import subprocess
import sys
from pathlib import Path

from funasr_cli.errors import SetupError
from funasr_cli.paths import path_in_variable

PACKAGES = ("torch", "transformers", "funasr")
VARIABLE = "FUNASR_REFERENCE_PYTHON"
APART = "import sys; del sys.path[0]; "  # the folder that one stands in, which may be a checkpoint's
HINT = (
    f"pip install funasr kaldi-native-fbank transformers torch into an environment of its own (it brings another "
    f"funasr command), and name its interpreter in {VARIABLE}"
)


def is_named() -> bool:
    """Whether somebody has said where it is."""
    return path_in_variable(VARIABLE) is not None


def reference_python() -> Path:
    """Interpreter that has FunASR, findable from any folder.

    Raises:
        SetupError: the one that is named, or else this one, has not.
    """
    python = path_in_variable(VARIABLE) or Path(sys.executable)
    try:
        command = [str(python), "-c", f"{APART}import funasr, kaldi_native_fbank"]
        found = subprocess.run(command, capture_output=True, check=False)
    except OSError as error:
        raise SetupError(f"{python}: cannot be run ({error.strerror})", HINT) from error
    if found.returncode:
        raise SetupError(f"{python}: has no PyTorch reference (funasr, kaldi-native-fbank)", HINT)
    return python.absolute() if python.is_file() else python  # a name alone is found by the system


def reference_versions(python: Path) -> dict[str, str]:
    """Versions of the packages that compute there.

    Args:
        python: of `reference_python`.
    """
    script = f"{APART}from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
    done = subprocess.run([str(python), "-c", script, *PACKAGES], capture_output=True, text=True, check=False)
    return dict(zip(PACKAGES, done.stdout.split(), strict=False))  # of none of them, where one is missing
