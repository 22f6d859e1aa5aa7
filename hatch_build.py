"""Build hook: compile the CPU engine into the wheel, and for editable installs into the source tree.

Without a C compiler the package is built without it, and MLX computes everything.
"""

import importlib.util
import platform
import tempfile
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = "funasr_cli/native"


class NativeLibrary(BuildHookInterface):  # type: ignore[type-arg]
    """Compile before the files of a wheel are gathered."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and warn if that fails. Only an editable install writes into the source tree."""
        build = self._load_build()
        if version == "editable":
            if build.is_wanted():
                self._warn(build.build())
            else:
                for path in (build.LIBRARY, build.LOG):  # of an earlier build
                    with suppress(OSError):
                        path.unlink(missing_ok=True)
        elif build.is_wanted():
            self._made = tempfile.TemporaryDirectory()  # read after this returns; removed by `finalize`
            problem = build.build(Path(self._made.name))
            self._warn(problem)
            if problem is None:
                build_data["pure_python"] = False
                build_data["tag"] = f"py3-none-linux_{platform.machine()}"  # it calls no Python
            for path in Path(self._made.name).iterdir():  # the library, or the log of what failed
                build_data["force_include"][str(path)] = f"{PACKAGE}/{path.name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the temporary folder."""
        if hasattr(self, "_made"):
            self._made.cleanup()

    def _load_build(self) -> ModuleType:
        """Load `funasr_cli/native/build.py` by itself: importing the package would need its dependencies."""
        spec = importlib.util.spec_from_file_location("native_build", Path(self.root) / PACKAGE / "build.py")
        assert spec
        assert spec.loader
        build = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(build)
        return build

    def _warn(self, problem: str | None) -> None:
        if problem:
            self.app.display_warning(f"built without the CPU engine: {problem}")
