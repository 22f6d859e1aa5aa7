"""Who is measured, and a process for each."""

import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from funasr_cli.errors import FunASRError, SetupError
from tools import counting
from tools.peers.checkpoint import FUNASR, MLX_AUDIO, OURS

WORKERS = Path(__file__).with_name("workers")
REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Engine:
    """One of those that are measured.

    Attributes:
        name: as in tables.
        environment: whose Python runs it.
        script: among the workers.
        layout: the checkpoint's folder.
        arguments: of the script, behind the folder.
        batches: whether it can take several clips at once and is asked to.
        counts: whether MLX's work in it can be counted.
        asked: what it is and was asked to do.
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
        "funasr-cli", "ours", "run_ours.py", OURS, batches=True, counts=True,
        asked="this project: `Recognizer.transcribe_batch`, with the number type (on a Linux CPU float32) and the "
        "BLAS that it chooses by itself; without the search for speech (VAD), since no other engine here does it",
    ),
    Engine(
        "funasr, float32", "torch", "run_funasr.py", FUNASR, arguments=("fp32",), batches=True,
        asked="FunASR on PyTorch, `AutoModel.generate`, without dither; its batch is `batch_size=16`",
    ),
    Engine(
        "funasr, bfloat16 decoder", "torch", "run_funasr.py", FUNASR, arguments=("bf16",), batches=True,
        asked='the same with `llm_dtype="bf16"`: the encoder stays in float32',
    ),
    Engine(
        "transformers, float32", "torch", "run_transformers.py", FUNASR,
        asked="the port in transformers, `FunAsrNanoForConditionalGeneration.generate`. It puts all rows of audio "
        "into the prompt where the others put an eighth, so its texts are others. Its feature extractor asks for "
        "torchaudio, which has no build for this torch; features come from FunASR's. Not asked for batches",
    ),
    Engine(
        "mlx-audio, as installed", "mlx-audio", "run_mlx_audio.py", MLX_AUDIO,
        arguments=(counting.__file__,), counts=True,
        asked="mlx-audio as pip installs it, with the back end that Linux needs (`mlx[cpu]`): bfloat16, and on a "
        "Linux CPU MLX's own products. It has no batches",
    ),
)  # fmt: skip


def needed_environment(threads: int) -> dict[str, str]:
    """The same threads for all, and nobody asks the network."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "FUNASR_BLAS")}
    return kept | dict.fromkeys(names, str(threads)) | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


@dataclass
class Worker:
    """An engine's process, its model loaded; to be used in a `with`.

    Attributes:
        python: the interpreter of its environment.
        checkpoint: what `write_checkpoint` wrote.
        log: a file for all that it prints.
    """

    engine: Engine
    python: Path
    checkpoint: Path
    threads: int
    log: Path
    versions: dict[str, str] = field(default_factory=dict)

    def __enter__(self) -> "Worker":
        if not self.python.is_file():
            hint = "`make bench-peers` sets the environments up"
            raise SetupError(f"{self.python}: not there", hint, code="environment-missing")
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
        """Have clips transcribed.

        Raises:
            FunASRError: the process died, or wrote another number of tokens.
        """
        assert self._process.stdin
        request = {"clips": [str(clip) for clip in clips], "tokens": tokens, "count": count}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._answer()
        if answer["tokens"] != [tokens] * len(clips):
            message = f"{self.engine.name}: wrote {answer['tokens']} tokens, not {tokens} for each clip"
            raise FunASRError(message, code="tokens-differ")
        return answer

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise FunASRError(f"{self.engine.name}: its process ended", f"see {self.log}", code="process-ended")
        answer: dict[str, Any] = json.loads(line)
        return answer
