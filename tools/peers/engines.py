"""The programs that are measured, and a process for each."""

import json
import os
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from funasr_cli.errors import FunASRError, SetupError
from tools import counting
from tools.peers.checkpoint import CRISPASR, FUNASR, MLX_AUDIO, OURS, OURS_IN_4_BITS

WORKERS = Path(__file__).with_name("workers")
REPOSITORY = Path(__file__).parents[2]
TYPES = ("Q8_0", "Q4_K")  # of CrispASR's checkpoints


@dataclass(frozen=True)
class Engine:
    """A program that is measured.

    Attributes:
        name: its name in tables.
        environment: the environment that runs it.
        script: its file name in the folder of workers.
        layout: the checkpoint's folder.
        asked: what it is and how it is run.
        arguments: arguments of the script after the folder.
        batches: whether batches of several clips are measured.
        counts: whether its MLX operations can be counted.
    """

    name: str
    environment: str
    script: str
    layout: str
    asked: str
    arguments: tuple[str, ...] = ()
    batches: bool = False
    counts: bool = False


ENGINES = (
    Engine(
        "funasr-cli, native int8", "ours", "run_ours.py", OURS, arguments=("native", "int8"), batches=True,
        asked="this project with `--engine native --dtype int8`: `Recognizer.transcribe_batch`, without voice "
        "activity detection, which no other program here does",
    ),
    Engine(
        "funasr-cli, native 4 bits", "ours", "run_ours.py", OURS_IN_4_BITS, arguments=("native", "int8"),
        batches=True,
        asked="the same with what `funasr convert --quantize 4` makes of the model: its decoder has 4-bit weights",
    ),
    Engine(
        "funasr-cli, MLX float32", "ours", "run_ours.py", OURS, arguments=("mlx", "float32"), batches=True,
        counts=True,
        asked="the model as it is with `--engine mlx --dtype float32`, and MKL for its matrix products",
    ),
    Engine(
        "funasr, float32", "torch", "run_funasr.py", FUNASR, arguments=("fp32",), batches=True,
        asked="FunASR on PyTorch: `AutoModel.generate` without dither; its batch is `batch_size=16`",
    ),
    Engine(
        "funasr, bfloat16 decoder", "torch", "run_funasr.py", FUNASR, arguments=("bf16",), batches=True,
        asked='the same with `llm_dtype="bf16"`; the encoder stays in float32',
    ),
    Engine(
        "transformers, float32", "torch", "run_transformers.py", FUNASR,
        asked="the port in transformers: `FunAsrNanoForConditionalGeneration.generate`. It puts all audio vectors "
        "into the prompt, the others one in eight, so its texts differ. Its feature extractor needs torchaudio, "
        "which has no build for this torch version, so FunASR computes the features. Batches were not measured",
    ),
    *(
        Engine(
            f"CrispASR, {kind}", "crispasr", "run_crispasr.py", CRISPASR, arguments=(kind,),
            asked=f"the model in {kind}: `funasr_transcribe_with_probs` of the library in its package. It has no "
            "batches. It does not report the time of the first token",
        )
        for kind in TYPES
    ),
    Engine(
        "mlx-audio, as installed", "mlx-audio", "run_mlx_audio.py", MLX_AUDIO,
        arguments=(counting.__file__,), counts=True,
        asked="mlx-audio as pip installs it, with the back end that Linux needs (`mlx[cpu]`): bfloat16, and on a "
        "Linux CPU MLX's own matrix products. It has no batches",
    ),
)  # fmt: skip


def needed_environment(threads: int) -> dict[str, str]:
    """Return an environment with the same threads for every program and without network access."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "FUNASR_BLAS")}
    return kept | dict.fromkeys(names, str(threads)) | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


class Load:
    """How busy the machine is with anything but one process, from now on; only Linux tells."""

    def __init__(self, pid: int) -> None:
        self._process = Path(f"/proc/{pid}/stat")
        self._began, self._before = time.perf_counter(), self._others_s()

    def elsewhere(self) -> float | None:
        """Return how many cores other processes have used on average; None if unknown."""
        others_s = self._others_s()
        if others_s is None or self._before is None:
            return None
        return max(0.0, (others_s - self._before) / (time.perf_counter() - self._began))

    def _others_s(self) -> float | None:
        """Return the CPU time of all processes but this one since the machine started."""
        try:
            user, nice, system, _, _, *interrupts = map(int, Path("/proc/stat").read_text().split()[1:8])
            own = self._process.read_text().rpartition(")")[2].split()[11:13]
        except OSError:
            return None
        return (user + nice + system + sum(interrupts) - sum(map(int, own))) / os.sysconf("SC_CLK_TCK")


@dataclass
class Worker:
    """A program's process with its model loaded, as a context manager.

    Attributes:
        python: the interpreter of its environment.
        checkpoint: the folder that `write_checkpoint` wrote.
        log: the file that receives everything it prints.
    """

    engine: Engine
    python: Path
    checkpoint: Path
    threads: int
    log: Path
    versions: dict[str, str] = field(default_factory=dict)

    def __enter__(self) -> "Worker":
        if not self.python.is_file():
            hint = "`make bench-peers` sets up the environments"
            raise SetupError(f"{self.python}: not found", hint, code="environment-missing")
        variables = needed_environment(self.threads)
        if self.engine.environment == "ours":  # the others must not find this package
            variables["PYTHONPATH"] = str(REPOSITORY)
        folder = self.checkpoint / self.engine.layout
        command = [str(self.python), str(WORKERS / self.engine.script), str(folder), *self.engine.arguments]
        with open(self.log, "w", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                command, env=variables, text=True, encoding="utf-8",
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
            )  # fmt: skip
        self.versions = self._answer()["versions"]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind:
            self._process.kill()
        self._process.communicate()

    def ask(self, clips: list[Path], tokens: int, count: bool = False) -> dict[str, Any]:
        """Transcribe clips and return the answer, with the cores that other processes used as "elsewhere".

        Raises:
            FunASRError: the process ended, or wrote a different number of tokens.
        """
        assert self._process.stdin
        load = Load(self._process.pid)
        request = {"clips": [str(clip) for clip in clips], "tokens": tokens, "count": count}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._answer()
        if answer["tokens"] != [tokens] * len(clips):
            message = f"{self.engine.name}: wrote {answer['tokens']} tokens, not {tokens} for each clip"
            raise FunASRError(message, code="tokens-differ")
        return answer | {"elsewhere": load.elsewhere()}

    def peak_bytes(self) -> int:
        """Return the most memory that the process has held; 0 where only Linux would tell."""
        try:
            status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="utf-8")
        except OSError:
            return 0
        return int(status.split("VmHWM:")[1].split()[0]) * 1024

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise FunASRError(f"{self.engine.name}: its process ended", f"see {self.log}", code="process-ended")
        answer: dict[str, Any] = json.loads(line)
        return answer
