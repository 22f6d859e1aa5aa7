"""Build hook: compile the CPU engine into the wheel, and for editable installs into the source tree.

Without a C compiler the package is built without it, and MLX computes everything.
"""

import importlib.util
import platform
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class NativeLibrary(BuildHookInterface):  # type: ignore[type-arg]
    """Compile before the files are gathered."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and say what became of it."""
        path = Path(self.root) / "funasr_cli/native/build.py"
        spec = importlib.util.spec_from_file_location("native_build", path)
        assert spec
        assert spec.loader
        build = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(build)
        if not build.is_wanted():
            build.LIBRARY.unlink(missing_ok=True)  # of an earlier build
            return
        try:
            build.compile_library()
        except RuntimeError as error:
            build.LIBRARY.unlink(missing_ok=True)
            self.app.display_warning(f"built without the CPU engine: {error}")
            return
        build_data["artifacts"].append("funasr_cli/native/libfunasr.so")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-linux_{platform.machine()}"  # it calls no Python
