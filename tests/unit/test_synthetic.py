"""Random models have the shapes of the real ones, and can be loaded."""

from pathlib import Path

import pytest

from funasr_cli.benchmarks.synthetic import QWEN4B, RELEASE, write_synthetic
from funasr_cli.checkpoints.checkpoint import empty_model
from funasr_cli.checkpoints.tensors import open_safetensors
from funasr_cli.checkpoints.vocabularies import read_tokenizer
from funasr_cli.demo import MODEL
from funasr_cli.families.converted import read_config
from funasr_cli.families.fun_asr_nano.prompt import prompt_token_ids
from funasr_cli.families.funasr_qwen4b.network import FunASRQwen4B
from funasr_cli.families.funasr_qwen4b.prompt import CURRENT, FORMATS
from funasr_cli.families.load import load_model
from funasr_cli.families.open import open_model
from funasr_cli.options import TranscribeOptions
from funasr_cli.pipeline import Recognizer


def tensor_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    return {name: tensor.shape for name, tensor in open_safetensors(folder / "model.safetensors").items()}


@pytest.mark.slow
def test_the_demo_models_size(tmp_path: Path, zh_wav: Path) -> None:
    folder = write_synthetic(tmp_path, "demo")
    real = {name: shape for name, shape in tensor_shapes(MODEL).items() if not name.startswith("ctc")}
    assert tensor_shapes(folder) == real
    transcript = Recognizer(load_model(folder)).transcribe(zh_wav, exact_tokens=5, vad=False)
    assert transcript.model == "synthetic demo"
    (segment,) = transcript.segments
    assert (segment.tokens, segment.stop_reason) == (5, "budget")
    assert segment.mean_logprob is not None
    assert -100 < segment.mean_logprob < 0


@pytest.mark.slow
def test_the_releases_size(tmp_path: Path) -> None:
    """The configuration is valid, the tokenizer loads, and prompts have the release's length."""
    folder = write_synthetic(tmp_path, "full")
    assert read_config(folder).config == RELEASE
    assert 1.65e9 < (folder / "model.safetensors").stat().st_size < 1.67e9
    tokenizer = read_tokenizer(folder / "tokenizer.json", RELEASE.llm.vocab_size)
    assert tokenizer.token_to_id("<|im_end|>") == RELEASE.stop_token_ids[0] == 151_645
    before, after = prompt_token_ids(TranscribeOptions(language="zh"), RELEASE.prompt, tokenizer)
    assert (len(before), len(after)) == (20, 5)
    assert tokenizer.decode(before, skip_special_tokens=True).endswith("user\n语音转写成中文：")
    assert tokenizer.decode([5000, 151_642]), "ordinary tokens must have a text"


@pytest.mark.full
def test_the_size_of_qwen4b(tmp_path: Path) -> None:
    """In 4 bits, with prompts of few tokens, as with Qwen's tokenizer."""
    folder = write_synthetic(tmp_path, "qwen4b")
    assert read_config(folder).config == QWEN4B
    assert 2.81e9 < (folder / "model.safetensors").stat().st_size < 2.83e9
    empty_model(open_model(folder), FunASRQwen4B(QWEN4B))
    tokenizer = read_tokenizer(folder / "tokenizer.json", QWEN4B.llm.vocab_size)
    lengths = [len(tokenizer.encode(text).ids) for texts in FORMATS[CURRENT].values() for text in texts]
    assert max(lengths) < 12
