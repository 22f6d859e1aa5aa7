"""`make bench-peers`: the protocol between its processes, what is counted and compared, and the page."""

import json
import os
import subprocess
import sys
import time
from argparse import Namespace
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from markdown_it import MarkdownIt
from safetensors.torch import load_file
from support.errors import refused
from tokenizers import pre_tokenizers

from funasr_cli.benchmarks.synthetic import _release_tokenizer
from funasr_cli.families.converted import read_config
from tools.peers import crispasr, engines, one_step
from tools.peers.__main__ import used_options
from tools.peers.checkpoint import write_checkpoint, write_clips
from tools.peers.crispasr import with_merges, write_crispasr
from tools.peers.engines import ENGINES, Load, Worker
from tools.peers.measure import Plan, run
from tools.peers.page import write_page
from tools.peers.results import merge

# Takes 0.25 s to the first token, and writes as many tokens as requested, except when that is 13.
FAKE = """
import sys, time
from serving import claim_stdout, serve
answers = claim_stdout()
print("chatter that is no answer")
class Work:
    computing, evaluations = 0, 0
    def __init__(self): self.operations = self
    def total(self): return 100 + 5 * self.tokens
class Fake:
    def __enter__(self): self.work = Work(); return self.work
    def __exit__(self, *_): pass
    def counting(self): return self
    def settle(self): pass
    def transcribe(self, clips, tokens):
        if tokens == 99: sys.exit("broken")
        if hasattr(self, "work"): self.work.tokens = tokens
        first = time.perf_counter() + 0.25
        return first, [tokens - (tokens == 13)] * len(clips), [sys.argv[2] + clip for clip in clips]
serve(Fake(), answers, ("pip",))
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Worker:
    """A worker, not yet started, with an engine that computes nothing."""
    workers = Path(engines.__file__).with_name("workers")
    (tmp_path / "run_fake.py").write_text(FAKE)
    (tmp_path / "serving.py").write_text((workers / "serving.py").read_text())
    monkeypatch.setattr(engines, "WORKERS", tmp_path)
    engine = replace(ENGINES[0], name="funasr-cli", script="run_fake.py", arguments=("said ",), counts=True)
    return Worker(engine, Path(sys.executable), tmp_path, 1, tmp_path / "log")


@pytest.mark.process
def test_a_worker_answers_and_its_other_output_is_logged(fake: Worker) -> None:
    with fake:
        answer = fake.ask([Path("a"), Path("b")], 5)
    assert answer["tokens"] == [5, 5]
    assert answer["texts"] == ["said a", "said b"]
    assert answer["first_token_s"] >= 0.25
    assert "pip" in fake.versions
    assert fake.log.read_text() == "chatter that is no answer\n"


@pytest.mark.process
def test_another_number_of_tokens_is_an_error(fake: Worker) -> None:
    with fake, refused("tokens-differ", "funasr-cli: ", [12], 13):
        fake.ask([Path("a")], 13)


@pytest.mark.process
def test_a_dead_process_is_an_error_that_names_the_log(fake: Worker) -> None:
    with fake, refused("process-ended", "funasr-cli: ", f"see {fake.log}"):
        fake.ask([Path("a")], 99)
    assert fake.log.read_text().endswith("broken\n")


def test_a_missing_environment_is_an_error(fake: Worker, tmp_path: Path) -> None:
    with refused("environment-missing", tmp_path / "nothing"):
        replace(fake, python=tmp_path / "nothing").__enter__()


def test_only_our_engine_can_import_this_package() -> None:
    """The other engines are measured with their own packages only."""
    variables = engines.needed_environment(2)
    assert "PYTHONPATH" not in variables
    assert {variables[name] for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")} == {"2"}


@pytest.mark.process
def test_engines_take_turns(fake: Worker) -> None:
    """They take turns in rounds. Speed is computed between two lengths. Slow engines run fewer rounds."""
    slow_engine = replace(ENGINES[-1], script="run_fake.py", arguments=("slow ",), counts=False)
    slow = replace(fake, engine=slow_engine, log=fake.log.with_name("slow.log"))
    reported: list[str] = []
    plan = Plan([Path("a"), Path("b")], tokens=6, trials=2, batch_trials=1, slow_trials=1)
    with fake, slow:
        results = run([fake, slow], plan, reported.append)
    turns = [line.split(":")[0] for line in reported if not line.startswith("warming")]
    assert turns == [
        "funasr-cli, 1 x 6 tokens", "mlx-audio, as installed, 1 x 6 tokens", "funasr-cli, 1 x 6 tokens",
        "funasr-cli, 2 x 4 tokens", "funasr-cli, 2 x 6 tokens",
    ]  # fmt: skip
    assert results["funasr-cli"]["work"] == {
        "further": {"operations": 5, "computing": 0, "evaluations": 0},
        "whole": {"operations": 130, "computing": 0, "evaluations": 0},
    }
    assert len(results["funasr-cli"]["clip"]) == 2
    assert [len(answer["texts"]) for answer in results["funasr-cli"]["batch"]] == [2]
    assert results["mlx-audio, as installed"]["batch"] == []


@pytest.mark.process
@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="only Linux tells")
def test_other_processes_are_noticed() -> None:
    """Work of the program itself is not counted, and that of another process is."""
    burn = "import time\nwhile time.process_time() < 0.5: pass"
    clock = time.perf_counter()
    with subprocess.Popen([sys.executable, "-c", burn], stdout=subprocess.DEVNULL) as process:
        own, other = Load(process.pid), Load(os.getpid())
        while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:  # stays in /proc
            time.sleep(0.05)
        from_own, from_other = own.elsewhere(), other.elsewhere()
        taken_s = time.perf_counter() - clock
    assert from_own is not None
    assert from_other is not None
    assert (from_other - from_own) * taken_s > 0.1  # seconds of a core, however busy the machine is


def answer(
    first_token_s: float | None, total_s: float, text: str, elsewhere: float | None = 0.0
) -> dict[str, Any]:
    return {"first_token_s": first_token_s, "total_s": total_s, "texts": [text], "elsewhere": elsewhere}


MACHINE = {
    "processor": "Abacus", "cores": 2, "memory_bytes": 16_000_000_000, "system": "Linux", "gpu": None,
    "blas": "libblas.so",
}  # fmt: skip
WORK = {
    "further": {"operations": 683.0, "computing": 339.5, "evaluations": 1.0},
    "whole": {"operations": 45022, "computing": 22297, "evaluations": 66},
}
OURS = {
    "clip": [answer(0.5, 4.0, "x"), answer(0.4, 5.0, "x"), answer(0.6, 3.0, "x")],
    "batch": [{"first_token_s": 1.0, "total_s": 16.0, "texts": ["x"] * 16, "elsewhere": None}],
    "work": WORK,
}
RUN: dict[str, Any] = {
    "commands": ["python -m tools.peers --size full"], "machine": MACHINE,
    "threads": 2, "model": "random weights", "tokens": 64, "clips": 16, "duration_s": 6.0,
    "asked": {"ours": "this", "theirs": "that"},
    "measured": {
        "ours": ["2030-01-02T03:04+00:00"], "theirs": ["2030-01-02T05:00+00:00", "2030-01-02T04:00+00:00"],
    },
    "versions": {"ours": {"mlx": "1"}, "theirs": {"torch": "2", "numpy": "3"}},
    "results": {"ours": OURS, "theirs": {"clip": [answer(2.0, 10.0, "x")], "batch": [], "work": None}},
}  # fmt: skip


def rows(page: str) -> list[list[str]]:
    """Return the cells of all rows of all tables, including empty ones."""
    tokens = MarkdownIt().enable("table").parse(page)
    found: list[list[str]] = []
    for token, content in pairwise(tokens):
        if token.type == "tr_open":
            found.append([])
        elif token.type in ("td_open", "th_open"):
            found[-1].append(content.content)
    return found


def test_every_layout_holds_the_same_weights(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, "demo")
    ours = load_file(folder / "ours/model.safetensors")
    theirs = torch.load(folder / "funasr/model.pt")["state_dict"]
    assert theirs.keys() - {"llm.lm_head.weight"} == ours.keys()
    assert all(
        tensor.equal(theirs[name].reshape(tensor.shape)) for name, tensor in ours.items()
    )  # one channel wide
    assert (folder / "mlx-audio/model.safetensors").samefile(folder / "ours/model.safetensors")
    config = json.loads((folder / "mlx-audio/config.json").read_text())
    assert config["text_config"]["num_hidden_layers"] == read_config(folder / "ours").config.llm.num_hidden_layers
    for layout in ("funasr", "mlx-audio"):
        tokenizer = json.loads((folder / layout / "Qwen3-0.6B/tokenizer_config.json").read_text())
        assert tokenizer["eos_token"] == "<|im_end|>"


def test_a_checkpoint_is_kept(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-full").mkdir()
    assert write_checkpoint(tmp_path, "full") == tmp_path / "checkpoint-full"
    assert list((tmp_path / "checkpoint-full").iterdir()) == []


def test_clips_differ_and_have_one_length(tmp_path: Path) -> None:
    first, second = (soundfile.read(path) for path in write_clips(tmp_path, 2, 1.5))
    assert first[1] == second[1] == 16000
    assert len(first[0]) == len(second[0]) == 24000
    assert (first[0] != second[0]).any()


def test_the_page_has_medians_ranges_and_ratios() -> None:
    found = rows(write_page(RUN))
    assert ["ours", "0.50 (0.40-0.60)", "1.00", "4.00 (3.00-5.00)", "1.00", "3", "0.00", "theirs"] in found
    assert ["theirs", "2.00", "4.00", "10.00", "2.50", "1", "0.00", "ours"] in found
    assert ["ours", "16.00", "1.00", "1.00", "4.0", "1", "unknown"] in found
    assert ["ours", "683", "339.5", "1", "703", "348", "1.03"] in found


def test_the_page_says_what_was_measured_on_what() -> None:
    page = write_page(RUN)
    found = rows(page)
    assert ["machine", "Abacus, 2 cores, 16 GB of memory"] in found
    assert ["threads", "2 for every engine"] in found
    assert ["device", "CPU; MLX with libblas.so"] in found
    assert ["ours", "mlx 1", "this", "2030-01-02T03:04"] in found
    assert ["theirs", "torch 2, numpy 3", "that", "2030-01-02T04:00 to 2030-01-02T05:00"] in found
    assert "no GPU was available" in page
    with_gpu = write_page(RUN | {"machine": MACHINE | {"gpu": "Card"}})
    assert "no GPU was available" not in with_gpu
    assert ["device", "Card for MLX, the CPU for PyTorch"] in rows(with_gpu)


def test_tasks_without_results_have_no_table() -> None:
    alone = {name: result | {"batch": [], "work": None} for name, result in RUN["results"].items()}
    page = write_page(RUN | {"results": alone})
    assert "in one batch" not in page
    assert "one more token" not in page


def test_disturbed_trials_do_not_count() -> None:
    clips = [answer(None, 3.0, "x"), answer(None, 9.0, "x", elsewhere=0.9), answer(None, 5.0, "x", elsewhere=0.1)]
    theirs = {"clip": clips, "batch": [answer(None, 50.0, "x", elsewhere=0.9)], "work": None}
    found = rows(write_page(RUN | {"results": {"ours": OURS, "theirs": theirs}}))
    assert ["theirs", "not reported", "", "4.00 (3.00-5.00)", "1.00", "2", "0.10", "ours"] in found
    assert [row[0] for row in found].count("theirs") == 2  # not among the batches


def test_one_program_is_measured_again() -> None:
    """The results of the others stay, and so does the order of the tables."""
    first, second, third = (engine.name for engine in ENGINES[:3])

    def run_of(*names: str, **changes: Any) -> dict[str, Any]:
        parts = {"asked": "how", "versions": {}, "measured": ["then"], "results": OURS}
        return RUN | {part: dict.fromkeys(names, value) for part, value in parts.items()} | changes

    saved = merge(None, run_of(first, third), append=False)
    added = merge(saved, run_of(second, commands=["another"]), append=True)
    assert list(added["results"]) == list(added["asked"]) == [first, second, third]
    assert added["commands"] == [*RUN["commands"], "another"]
    fresh = OURS | {"clip": [answer(1.0, 1.0, "y")], "work": None}
    again = run_of(second, results={second: fresh})
    assert merge(added, again, append=False)["results"] == added["results"] | {second: fresh}
    more = merge(added, again, append=True)
    assert more["results"][second] == OURS | {"clip": OURS["clip"] + fresh["clip"], "batch": OURS["batch"] * 2}
    assert more["measured"] == {first: ["then"], second: ["then", "then"], third: ["then"]}
    with refused("options-conflict", "tokens"):
        merge(saved, run_of(second, tokens=65), append=True)


@pytest.mark.parametrize(
    "text",
    [
        "\nYou are a helpful assistant.", "system", "user", "assistant", "语音转写成中文：",
        "语音转写成英文，不进行文本规整：",
    ],
)  # fmt: skip
def test_crispasr_has_the_same_prompt(text: str) -> None:
    """With the merges, pairs of bytes become the tokens that our tokenizer finds."""
    tokenizer = _release_tokenizer()
    content = with_merges(json.loads(tokenizer.to_str()))
    ids = content["model"]["vocab"] | {token["content"]: token["id"] for token in content["added_tokens"]}
    ranks = {pair: rank for rank, pair in enumerate(content["model"]["merges"])}
    parts = list(pre_tokenizers.ByteLevel(False, use_regex=False).pre_tokenize_str(text)[0][0])
    while pairs := [at for at in range(len(parts) - 1) if " ".join(parts[at : at + 2]) in ranks]:
        at = min(pairs, key=lambda at: ranks[" ".join(parts[at : at + 2])])
        parts[at : at + 2] = ["".join(parts[at : at + 2])]
    assert [ids[part] for part in parts] == tokenizer.encode(text).ids


def test_the_command_on_the_page_can_be_repeated() -> None:
    """It has all settings but paths of this machine; flags have no value."""
    stated = Namespace(
        state=Path("here"), out=Path("there"), from_json=None, tokens=64, engines=["a b"], append=True
    )
    assert used_options(stated) == ["--tokens", "64", "--engines", "a b", "--append"]


@pytest.mark.process
def test_crispasr_converts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_checkpoint(tmp_path, "demo")
    converter, python = tmp_path / "convert.py", Path(sys.executable)
    with refused("environment-missing", converter):
        write_crispasr(folder, python, converter)
    monkeypatch.setattr(crispasr, "CONVERT", tmp_path / "fake.py")
    crispasr.CONVERT.write_text("import sys, pathlib; pathlib.Path(sys.argv[3]).write_text(sys.argv[4])")
    converter.touch()
    write_crispasr(folder, python, converter)
    written = {path.name: path.read_text() for path in (folder / "crispasr").glob("*.gguf")}
    assert written == {"Q8_0.gguf": "Q8_0", "Q4_K.gguf": "Q4_K"}
    assert (folder / "crispasr/model.pt").samefile(folder / "funasr/model.pt")
    crispasr.CONVERT.unlink()
    write_crispasr(folder, python, converter)


def test_a_page_can_be_rewritten_from_saved_results(tmp_path: Path) -> None:
    kept, page = tmp_path / "kept.json", tmp_path / "page.md"
    kept.write_text(json.dumps(RUN), encoding="utf-8")
    command = [sys.executable, "-m", "tools.peers", "--state", tmp_path, "--out", page]
    done = subprocess.run([*command, "--from-json", kept], check=False, cwd=engines.REPOSITORY)
    assert done.returncode == 0
    assert page.read_text(encoding="utf-8") == write_page(RUN)


def test_the_page_of_models_that_read_in_one_step() -> None:
    """Medians, ratios to FunASR for the same model, memory, and whether the texts are the same."""
    names = [engine.name for engine in one_step.ENGINES]
    answers = {
        name: {
            "versions": {"mlx": "1", "decoder": "x"},
            "clip": [{"total_s": 0.5 + index / 2 + trial / 10, "texts": [name[:4]]} for trial in (0, 1, 2)],
            "batch": [{"total_s": 4.0, "texts": []}] if "Nano" not in name else [],
            "peak_bytes": 1_500_000_000,
        }
        for index, name in enumerate(names)
    }
    machine = {"processor": "P", "cores": 2}
    page = one_step.write_page(
        {"machine": machine, "threads": 2, "clips": 8, "duration_s": 6.0, "answers": answers}
    )
    rows = {row.split(" | ")[0].strip("| "): row.split(" | ")[1:] for row in page.splitlines() if ": fun" in row}
    assert rows.keys() == answers.keys()
    assert rows[names[0]] == ["0.600 s (0.500-0.700)", "0.17", "0.500 s (0.500-0.500)", "1.50 GB", "yes |"]
    assert rows[names[-1]][1:3] == ["-", "-"]
    assert "mlx 1." in page
