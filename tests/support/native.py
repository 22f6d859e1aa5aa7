"""The C library for tests: the installed one, or one that NATIVE_LIBRARY names, such as one with sanitizers."""

import os
from pathlib import Path

from funasr_cli.native import build
from funasr_cli.native.library import instruction_sets, library, load

if build.LIBRARY.is_file() and build.is_wanted():
    load(build.LIBRARY)  # fails if it was compiled from other sources: the tests would be skipped unnoticed
NAMED = "NATIVE_LIBRARY"
EMULATION = Path(__file__).parent / "amx_emulation.h"  # of tile registers, in plain C
EMULATING = f'-DFN_TILES="{EMULATION}"'  # a compiler option: with AVX512, compute as if there were AMX
LIBRARY = load(Path(os.environ[NAMED])) if os.environ.get(NAMED) else library()
SETS = instruction_sets(LIBRARY) if LIBRARY else ()
WITHOUT = "built without the CPU engine"
