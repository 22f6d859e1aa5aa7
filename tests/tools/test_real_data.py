"""`make real-data`: a part is complete or absent, what is missing is stated, and layouts hold the same values."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from safetensors.numpy import load_file
from support.real_data import real_part

from funasr_cli.errors import FunASRError, ModelError, SetupError
from tools.real_data import __main__ as command
from tools.real_data import speech, voices, weights
from tools.real_data.cache import SPEECH, SUMS, VARIABLE, WHISPER, Part
from tools.real_data.ctranslate2 import dimensions, openai_tensors, read_variables

ROOT = Path(__file__).parents[2]
WIDTH, MELS, VOCABULARY = 4, 3, 9
TYPES = {"float32": 0, "int8": 1, "float16": 4}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def part(text: str, digest: str | None = None) -> Part:
    return Part("a/part", "", lambda folder: (folder / "file").write_text(text) and None, digest)


def refused(_: Path) -> None:
    raise SetupError("no network", code="download-failed")


def run(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["real_data", *arguments])
    return command.main()


def test_a_part_is_complete_after_writing_and_its_hashes_are_those_of_sha256sum(cache: Path) -> None:
    one = part("content")
    assert one.problem()
    one.write()
    assert one.problem() == ""
    subprocess.run(["sha256sum", "--check", SUMS], cwd=cache / "a/part", check=True, capture_output=True)


@pytest.mark.parametrize("damage", ["changed", "missing", "additional"])
def test_a_damaged_part_is_noticed_and_written_again(cache: Path, damage: str) -> None:
    one, folder = part("content"), cache / "a/part"
    one.write()
    if damage == "missing":
        (folder / "file").unlink()
    else:
        (folder / ("file" if damage == "changed" else "more")).write_text("other")
    assert one.problem()
    one.write()
    assert one.problem() == ""
    assert {path.name for path in folder.iterdir()} == {"file", SUMS}


def test_a_failure_keeps_the_earlier_part_and_leaves_no_half(cache: Path) -> None:
    part("content").write()
    with pytest.raises(SetupError):
        Part("a/part", "", refused).write()
    assert part("content").problem() == ""
    with pytest.raises(SetupError):
        Part("a/second", "", refused).write()
    assert not (cache / "a/second").exists()


def test_other_files_than_expected_are_refused(cache: Path) -> None:
    with pytest.raises(FunASRError, match="SHA-256") as caught:
        part("content", digest="0" * 64).write()
    assert caught.value.code == "file-changed"
    assert not (cache / "a/part").exists()


def test_exit_codes(cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """All complete: 0; one missing: 5, the others are fetched; `--check` writes nothing."""
    monkeypatch.setattr(command, "PARTS", (Part("b/second", "", refused), part("content")))
    assert run("--check", monkeypatch=monkeypatch) == 5
    assert not cache.exists()
    assert run(monkeypatch=monkeypatch) == 5
    assert "no network" in capsys.readouterr().out
    assert part("content").problem() == ""
    monkeypatch.setattr(command, "PARTS", (part("content"),))
    assert run(monkeypatch=monkeypatch) == run("--check", monkeypatch=monkeypatch) == 0


def test_without_an_index_and_without_apt_everything_is_missing_with_a_reason(cache: Path, tmp_path: Path) -> None:
    """On a Mac without a network, for example."""
    variables = {"PATH": str(tmp_path), "HOME": str(tmp_path), "PYTHONPATH": str(ROOT), VARIABLE: str(cache)}
    variables |= {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_CONFIG_FILE": os.devnull, "PIP_RETRIES": "0"}
    command_line = [sys.executable, "-m", "tools.real_data"]
    done = subprocess.run(command_line, env=variables, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 5, done.stderr
    lines = done.stdout.splitlines()[1:]
    assert len(lines) == len(command.PARTS)
    assert all("missing: " in line for line in lines)
    assert sum("pip download" in line for line in lines) == 1
    assert sum("apt-get: not found" in line for line in lines) == len(speech.PARTS + voices.PARTS)
    assert not list(cache.rglob(SUMS))


def model_bin(variables: dict[str, np.ndarray], aliases: int = 1, version: int = 6) -> bytes:
    """Write CTranslate2's format."""

    def name(text: str) -> bytes:
        return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"

    parts = [struct.pack("<I", version), name("WhisperSpec"), struct.pack("<II", 3, len(variables))]
    for key, value in variables.items():
        sizes = struct.pack(f"<B{value.ndim}I", value.ndim, *value.shape)
        parts += [name(key), sizes, struct.pack("<BI", TYPES[str(value.dtype)], value.nbytes), value.tobytes()]
    return b"".join([*parts, struct.pack("<I", aliases), *[name("alias") + name("target")] * aliases])


@pytest.fixture
def variables() -> dict[str, np.ndarray]:
    """A Whisper with one encoder layer, two decoder layers and different random values everywhere."""
    rng = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {"encoder/conv1/weight": (WIDTH, MELS, 3), "encoder/conv1/bias": (WIDTH,)}
    shapes |= {"encoder/conv2/weight": (WIDTH, WIDTH, 3), "encoder/conv2/bias": (WIDTH,)}
    shapes |= {"decoder/embeddings/weight": (VOCABULARY, WIDTH)}
    for side, layers, positions in (("encoder", 1, 6), ("decoder", 2, 5)):
        shapes[f"{side}/position_encodings/encodings"] = (positions, WIDTH)
        norms = [f"{side}/layer_norm"]
        for n in range(layers):
            layer = f"{side}/layer_{n}"
            linears = {"self_attention/linear_0": (12, 4), "self_attention/linear_1": (4, 4)}
            linears |= {"ffn/linear_0": (16, 4), "ffn/linear_1": (4, 16)}
            norms += [f"{layer}/self_attention/layer_norm", f"{layer}/ffn/layer_norm"]
            if side == "decoder":
                linears |= {f"attention/linear_{i}": (size, 4) for i, size in enumerate((4, 8, 4))}
                norms.append(f"{layer}/attention/layer_norm")
            for name, shape in linears.items():
                shapes |= {f"{layer}/{name}/weight": shape, f"{layer}/{name}/bias": shape[:1]}
        shapes |= {f"{norm}/{kind}": (WIDTH,) for norm in norms for kind in ("gamma", "beta")}
    arrays = {name: rng.standard_normal(shape).astype("float16") for name, shape in shapes.items()}
    for name in arrays:
        if name.endswith("self_attention/linear_0/bias"):
            arrays[name][WIDTH : 2 * WIDTH] = 0  # keys have no bias
        elif name.endswith("/attention/linear_1/bias"):
            arrays[name][:WIDTH] = 0
    return arrays | {"encoder/num_heads": np.array(2, "int8")}


def test_model_bin_reads_as_written(variables: dict[str, np.ndarray]) -> None:
    found = read_variables(model_bin(variables))
    assert found.keys() == variables.keys()
    assert all(np.array_equal(found[name], variables[name]) for name in variables)


@pytest.mark.parametrize("data", ["version", "longer", "shorter"])
def test_another_or_damaged_model_bin_is_refused(variables: dict[str, np.ndarray], data: str) -> None:
    whole = model_bin(variables)
    wrong = {"version": model_bin(variables, version=5), "longer": whole + b"x", "shorter": whole[:-9]}[data]
    with pytest.raises(ModelError):
        read_variables(wrong)


def test_stacked_matrices_become_openais(variables: dict[str, np.ndarray]) -> None:
    tensors = openai_tensors(variables)
    stacked = variables["decoder/layer_1/self_attention/linear_0/weight"]
    names = [f"decoder.blocks.1.attn.{part}.weight" for part in ("query", "key", "value")]
    assert np.array_equal(np.concatenate([tensors[name] for name in names]), stacked)
    cross = variables["decoder/layer_0/attention/linear_1/bias"]
    assert np.array_equal(tensors["decoder.blocks.0.cross_attn.value.bias"], cross[WIDTH:])
    assert not [name for name in tensors if name.endswith("key.bias")]
    given = sum(value.size for value in variables.values()) - 1  # `num_heads`
    assert sum(value.size for value in tensors.values()) == given - 5 * WIDTH, "all values except the keys' biases"
    assert dimensions(tensors, 2) == {
        "n_mels": MELS, "n_audio_ctx": 6, "n_audio_state": WIDTH, "n_audio_head": 2, "n_audio_layer": 1,
        "n_vocab": VOCABULARY, "n_text_ctx": 5, "n_text_state": WIDTH, "n_text_head": 2, "n_text_layer": 2,
    }  # fmt: skip


def test_a_bias_of_keys_is_refused(variables: dict[str, np.ndarray]) -> None:
    variables["encoder/layer_0/self_attention/linear_0/bias"][WIDTH] = 1
    with pytest.raises(ModelError):
        openai_tensors(variables)


def test_tokenizers_of_both_ages_become_complete() -> None:
    start = {"id": 3, "content": "<|notimestamps|>"}
    old = {"model": {"merges": ["a b"] * 49_999}, "added_tokens": [start]}
    found = weights.complete_tokenizer(old, 1505)
    assert found["model"]["merges"][0] == "Ġ t"
    assert [(token["id"], token["content"]) for token in found["added_tokens"][1::1500]] == [
        (4, "<|0.00|>"),
        (1504, "<|30.00|>"),
    ]
    again = json.loads(json.dumps(found))
    assert weights.complete_tokenizer(again, 1505) == found


def phrase(path: Path, text: str = "Plain text.", duration_s: float = 2.0, rate_hz: int = 8000) -> speech.Phrase:
    samples = np.random.default_rng(len(path.name)).integers(-9000, 9000, round(duration_s * rate_hz), np.int16)
    samples[: rate_hz // 10] = 0
    soundfile.write(path, samples, rate_hz, subtype="PCM_16")
    return speech.Phrase(path, text, "voice", "package", "licence")


def test_only_plain_texts_of_a_suitable_length(tmp_path: Path) -> None:
    texts = ["Bonjour,  l'été – déjà?", "Press 1.", "[tone]", "to/from", ""]
    phrases = [phrase(tmp_path / f"{n}.wav", text) for n, text in enumerate(texts)]
    phrases += [phrase(tmp_path / "short.wav", duration_s=0.9), phrase(tmp_path / "long.wav", duration_s=15.1)]
    assert [chosen.text for chosen in speech.select(phrases)] == ["Bonjour, l'été – déjà?"]


def test_joined_phrases_are_where_the_rows_say(tmp_path: Path) -> None:
    phrases = [phrase(tmp_path / f"{'x' * n}.wav", f"text {n}", 1 + n) for n in range(1, 4)]
    rows = speech.join(phrases, tmp_path / "joined.wav")
    samples, rate_hz = soundfile.read(tmp_path / "joined.wav", dtype="int16")
    silent = np.ones(len(samples), bool)
    for row, one in zip(rows, phrases, strict=True):
        span = slice(round(row["start_s"] * rate_hz), round(row["end_s"] * rate_hz))
        assert np.array_equal(samples[span], soundfile.read(one.path, dtype="int16")[0])
        assert row["text"] == one.text
        assert row["sound_start_s"] - row["start_s"] == pytest.approx(0.1, abs=0.02)
        assert row["sound_end_s"] == pytest.approx(row["end_s"], abs=0.02)
        silent[span] = False
    assert not samples[silent].any()
    times_s = [time_s for row in rows for time_s in (row["start_s"], row["end_s"])]
    pauses_s = np.diff([*times_s, len(samples) / rate_hz])
    assert pauses_s[1::2] == pytest.approx(speech.PAUSES_S, abs=1e-4)


@pytest.mark.slow
def test_the_layouts_hold_the_same_values() -> None:
    """All 245 tensors and 72,593,920 values of the release, positions of the encoder included."""
    torch = pytest.importorskip("torch")
    hf = load_file(real_part(f"{WHISPER}-hf") / "model.safetensors")
    mlx = load_file(real_part(f"{WHISPER}-mlx") / "weights.safetensors")
    openai = torch.load(real_part(f"{WHISPER}-openai") / "base.pt", weights_only=True)["model_state_dict"]
    assert sum(value.size for value in hf.values()) == 72_593_920
    assert len(hf) == len(openai) == len(mlx) + 1 == 245
    for name, tensor in openai.items():
        value = tensor.numpy()
        assert np.array_equal(hf[weights.hf_name(name)], value)
        other = mlx.get(name.replace("mlp.0", "mlp1").replace("mlp.2", "mlp2"))
        if other is not None:
            assert np.array_equal(other.swapaxes(1, 2) if other.ndim == 3 else other, value)


@pytest.mark.slow
@pytest.mark.parametrize(("language", "count"), [("en", 304), ("es", 272), ("fr", 260)])
def test_the_phrases_are_the_released_ones(language: str, count: int) -> None:
    folder = real_part(f"{SPEECH}/{language}")
    rows = [json.loads(line) for line in (folder / "texts.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == len({row["file"] for row in rows}) == count
    for row in rows:
        assert soundfile.info(folder / row["file"]).duration == pytest.approx(row["duration_s"], abs=1e-3)
