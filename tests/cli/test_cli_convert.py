"""`funasr convert`: its output, what it refuses, and its memory."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.checkpoints import write_checkpoint
from support.expected import cut_short, lines_of
from support.layouts import write_mlx_audio, write_transformers
from support.running import environment, funasr, invoke
from support.small import MakeCheckpoint, small_spec
from support.terminal import frames, on_terminal

import funasr_cli
from funasr_cli.checkpoints.format import sha256_of

MEBIBYTE = 1 << 20


def test_convert_then_transcribe_needs_no_path(small_checkpoint: Path, short_wav: Path, tmp_path: Path) -> None:
    env = {"FUNASR_HOME": str(tmp_path)}
    result = funasr("convert", small_checkpoint, env=env)
    folder = tmp_path / "models/Small-Nano"
    weights = folder / "model.safetensors"
    assert result.stdout == f"{folder}\n"
    notes = result.stderr.splitlines()
    assert notes[:5] == [
        f"87 tensors in the layout of FunASR, {weights.stat().st_size / 1e6:.1f} MB, bfloat16",
        "languages: zh, en, ja",
        "CTC head, needed for word times: no, this model has none",
        f"SHA-256 of the source:  {sha256_of(small_checkpoint / 'model.pt')}",
        f"SHA-256 of the weights: {sha256_of(weights)}",
    ]
    assert re.fullmatch(r"compared on 0005-zh-numbers\.flac: \d+ of 24 tokens agree with the source", notes[5])
    assert re.fullmatch(r"relative differences: features none, encoder \S+, adaptor \S+, logits \S+", notes[6])
    assert [line.split(":")[0] for line in notes[7:]] == ["text of the source", "text of the result"]
    assert result.exit_code == 0
    result = invoke("transcribe", short_wav, "--max-tokens", 2, env=env)
    assert result.exit_code == 1
    note, rest = result.stderr.split("\n", 1)
    assert "Small-Nano" in note
    assert rest.startswith(cut_short(short_wav, "0.0-0.5", 2))
    assert result.stdout == lines_of(folder, short_wav, max_tokens=2) != ""


@pytest.mark.slow
def test_values_that_fit_the_type_are_kept_exactly(small_checkpoint: Path, tmp_path: Path) -> None:
    result = invoke("convert", small_checkpoint, tmp_path / "out", "--dtype", "float32")
    exactly = "verified: source and result agree exactly on 0005-zh-numbers.flac, in every stage"
    assert (result.exit_code, result.stderr.splitlines()[5:]) == (0, [exactly])


@pytest.mark.slow
def test_a_hub_for_a_folder_is_refused(small_checkpoint: Path, small_model: Path, tmp_path: Path) -> None:
    """The option is refused; a variable may be set permanently and is ignored."""
    invoke("convert", small_checkpoint, tmp_path / "m", "--hub", "ms").assert_fails(2, "--hub ms", "local folder")
    invoke("convert", "--check", small_model, "--hub", "hf").assert_fails(2, "--check with --hub")
    assert invoke("convert", "--check", small_model, env={"FUNASR_HUB": "ms"}).exit_code == 0
    out = tmp_path / "out"
    assert invoke("convert", small_checkpoint, out, "--verify", "off", env={"FUNASR_HUB": "ms"}).exit_code == 0
    assert json.loads((out / "config.json").read_text())["source"]["hub"] is None


def test_progress_on_a_terminal(small_checkpoint: Path, tmp_path: Path) -> None:
    """The bar shows bytes where their number is known, and no bytes or time where the duration is unknown."""
    out = tmp_path / "out"
    code, shown, printed = on_terminal("convert", small_checkpoint, out, stdout_too=False)
    assert (code, printed) == (0, f"{out}\n")
    bars = [line for line in frames(shown) if re.match("checking|writing|verifying", line)]
    facts = {line.replace("━", "").replace("╸", "").replace("╺", "").rstrip() for line in bars}
    bytes_ = re.compile(r"(checking|writing) +\d+\.\d/\d+\.\d [kM]B(?: +[:\d]+ left)?")
    assert "verifying" in facts
    assert [fact for fact in facts if bytes_.fullmatch(fact)]
    assert {fact for fact in facts if not bytes_.fullmatch(fact)} <= {"checking", "writing", "verifying"}


# A process that samples another one's RssAnon; Linux keeps no peak value for it.
WATCHER = """
import re, sys, threading, time
import funasr_cli, torch
from funasr_cli.verification import proof  # and with it all that converting imports
from pathlib import Path
def anonymous():
    return 1024 * int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
peak, done = 0, threading.Event()
def watch():
    global peak
    while not done.is_set():
        peak = max(peak, anonymous())
        time.sleep(0.002)
source, out, bits = sys.argv[1:]
before = anonymous()
thread = threading.Thread(target=watch)
thread.start()
funasr_cli.convert(source, out, quantize=int(bits) or None, verify="off")
done.set()
thread.join()
print(peak - before)
"""


@pytest.fixture(scope="module")
def large_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 tensors of 240 MB in total and at most 16 MB each; in bfloat16, they take 110 MB in total."""
    spec = small_spec(llm_dim=512, llm_heads=8, llm_kv_heads=8, llm_head_dim=64, llm_ffn_dim=2048, llm_layers=12,
                      llm_vocab_size=8192)  # fmt: skip
    return write_checkpoint(tmp_path_factory.mktemp("large") / "Large", spec)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="RssAnon is Linux's")
@pytest.mark.parametrize("bits", [0, 4])
def test_memory_does_not_grow_with_the_checkpoint(large_checkpoint: Path, tmp_path: Path, bits: int) -> None:
    """Tensors are memory-mapped, and at most one of them is held in its converted form."""
    assert (large_checkpoint / "model.pt").stat().st_size > 190 * MEBIBYTE
    command = [sys.executable, "-c", WATCHER, str(large_checkpoint), str(tmp_path / "out"), str(bits)]
    output = subprocess.run(command, capture_output=True, check=True, env=environment()).stdout
    assert int(output) < 64 * MEBIBYTE  # of 240 MB; the allocator keeps some


# --- layouts of other programs: messages, and models that are used without conversion ---

HEAD = "CTC head, needed for word times: no, this model has none"
ELSEWHERE = "funasr convert nano --hub ms fetches a copy with word times"


def test_transformers(small_checkpoint: Path, tmp_path: Path) -> None:
    """It reports that the frame rate and prompt are taken from upstream."""
    source, out = write_transformers(small_checkpoint, tmp_path / "Nano-hf"), tmp_path / "out"
    result = invoke("convert", source, out, "--dtype", "float32", "--verify", "off")
    assert (result.exit_code, result.stdout) == (0, f"{out}\n")
    first, note, *others = result.stderr.splitlines()
    assert first.startswith("87 tensors in the layout of Transformers, ")
    assert ("frame rate" in note, others[1]) == (True, HEAD)
    result = invoke("transcribe", "clip.wav", "-m", source)
    result.assert_error(3, "model-unconverted", f"funasr convert {source}")


@pytest.mark.slow
def test_mlx_audio(make_checkpoint: MakeCheckpoint, short_wav: Path, tmp_path: Path) -> None:
    """The folder is used directly, with the same text as its conversion. It reports the missing CTC branch."""
    ctc_checkpoint = make_checkpoint("Nano", with_ctc=True)
    source = write_mlx_audio(ctc_checkpoint, tmp_path / "Nano-mlx-audio")
    out = tmp_path / "out"
    result = invoke("convert", source, out, "--dtype", "float32", "--verify", "off")
    assert (result.exit_code, result.stdout) == (0, f"{out}\n")
    first, note, *others = result.stderr.splitlines()
    assert first.startswith("87 tensors in the layout of mlx-audio, ")
    assert ("CTC branch is left out" in note, others[1]) == (True, f"{HEAD}; {ELSEWHERE}")
    model = funasr_cli.convert(ctc_checkpoint, tmp_path / "model", dtype="float32", verify="off").folder
    expected = lines_of(model, short_wav, max_tokens=4)
    assert expected
    for folder in (source, out):
        assert invoke("transcribe", short_wav, "-m", folder, "--max-tokens", 4).stdout == expected
    checked = invoke("convert", "--check", source)
    assert (checked.exit_code, checked.stderr) == (0, "")
    whole, digest, *others = checked.stdout.splitlines()
    assert whole.startswith("intact: 87 arrays, ")
    assert digest == f"SHA-256 of the weights: {sha256_of(source / 'model.safetensors')}"
    assert others == ["the folder has no SHA256SUMS", "languages: zh, en, ja", f"{HEAD}; {ELSEWHERE}"]


@pytest.mark.parametrize("option", ["--lora", "--encoder", "--adaptor", "--llm"])
def test_what_is_on_this_machine_is_checked_before_the_hub_is_asked(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr("funasr_cli.hubs.huggingface.fetch", lambda *given: asked.append(given))
    result = invoke("convert", "nano", tmp_path / "out", option, tmp_path / "nonsense")
    result.assert_error(3, "model-missing", str(tmp_path / "nonsense"))
    assert invoke("convert", "nano", tmp_path / "out", option, "nonsense").exit_code == 3
    assert asked == []


@pytest.mark.slow
def test_three_sources_become_a_model(qwen4b_source: Path, short_wav: Path, tmp_path: Path) -> None:
    """With the adaptor, the only argument is OUT; parts that are not named are looked for in a folder."""
    out, parts = tmp_path / "out", qwen4b_source
    adaptor = ("--adaptor", parts / "adaptor_phase2_final.safetensors")
    llm = ("--llm", parts / "models/Qwen3-4B")
    encoder = ("--encoder", parts / "sensevoice_iic.safetensors")
    result = invoke("convert", *encoder, *adaptor, *llm, out, "--verify", "off")
    assert (result.exit_code, result.stdout) == (0, f"{out}\n")
    assert "languages: zh" in result.stderr.splitlines()
    result = invoke("transcribe", short_wav, "-m", out, "--translate", "--max-tokens", 2, "-f", "json")
    assert json.loads(result.stdout)["segments"][0]["translation"]["language"] == "en"
    env = {"FUNASR_HOME": str(tmp_path)}
    result = invoke("convert", *encoder, *adaptor, *llm, "--verify", "off", env=env)
    assert result.stdout == f"{tmp_path / 'models/FunASR-Qwen4B'}\n"
    result = invoke("convert", parts, *llm, tmp_path / "folder", "--verify", "off")
    assert result.exit_code == 0
    invoke("convert", *llm, "--verify", "off").assert_fails(2, "SOURCE is missing", "--adaptor")
    invoke("convert", *adaptor, "--check").assert_fails(2, "--check with --adaptor")
    invoke("transcribe", short_wav, "-m", out, "--lang", "en").assert_fails(2, "zh")
