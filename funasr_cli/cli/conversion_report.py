"""What a conversion, or a look at one, has shown, as lines of text."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from funasr_cli.options import Hub

if TYPE_CHECKING:
    from funasr_cli.checkpoints.checkpoint import Checkpoint
    from funasr_cli.checkpoints.convert import Conversion, Proof
    from funasr_cli.checkpoints.format import ModelFile
    from funasr_cli.models.fun_asr_nano import FunASRNanoConfig
    from funasr_cli.verification.check import Checked

CTC = "CTC head, and so word times: yes"
NO_CTC = "CTC head, and so word times: no, this model has none"
ON_MODELSCOPE = "ModelScope's copy has one: --hub ms"
STAGES = {"features": "features", "encoder": "encoder", "audio_rows": "adaptor", "logits": "logits"}


def conversion_lines(conversion: "Conversion") -> Iterator[str]:
    """For stderr, after a conversion."""
    model = conversion.model
    weights = _weights(model, conversion.size_bytes)
    stored = f", stored as {conversion.arrays}" if conversion.arrays != conversion.tensors else ""
    yield f"{conversion.tensors} tensors in the layout of {conversion.layout}{stored}, {weights}"
    yield from (f"note: {note}" for note in conversion.notes)
    yield from capabilities(model.config, model.source)
    yield from (f"SHA-256 of the source:  {digest}" for digest in str(model.source["sha256"]).splitlines())
    yield f"SHA-256 of the weights: {conversion.sha256}"
    if conversion.proof:
        yield from _proof_lines(conversion.proof)


def check_lines(checked: "Checked") -> Iterator[str]:
    """For stdout, of a model that is whole."""
    checkpoint = checked.checkpoint
    weights = _weights(checkpoint, checked.size_bytes)
    yield f"whole: {len(checkpoint.tensors)} arrays, {weights}; all values are numbers"
    yield f"SHA-256 of the weights: {checked.sha256}"
    yield f"SHA-256 of {checked.listed} files: as listed" if checked.listed else "no list of SHA-256 lies there"
    yield from (f"note: {note}" for note in checked.notes)
    yield from capabilities(checkpoint.config, checkpoint.source)


def capabilities(config: "FunASRNanoConfig", source: Mapping[str, str | None]) -> Iterator[str]:
    """What the model can do, by its configuration and by where it came from."""
    yield f"languages: {', '.join(config.prompt.languages)}"
    if config.ctc:
        yield CTC
    else:
        yield f"{NO_CTC}; {ON_MODELSCOPE}" if has_ctc_on_modelscope(source) else NO_CTC


def has_ctc_on_modelscope(source: Mapping[str, str | None]) -> bool:
    """Whether the other hub's copy of a model that has no CTC head has one."""
    from funasr_cli.checkpoints.hub import CTC_ON_MODELSCOPE

    return CTC_ON_MODELSCOPE in (source.get("source"), source.get("origin")) and source.get("hub") != Hub.MS


def _proof_lines(proof: "Proof") -> Iterator[str]:
    from funasr_cli.checkpoints.untrusted import readable

    if not any(proof.errors.values()) and proof.source_text == proof.result_text:
        yield f"verified: {proof.clip} gives exactly what the source gives, in every stage"
    else:
        yield f"compared: of {proof.tokens} tokens for {proof.clip}, {proof.agreeing} agree with the source's"
        yield f"differences, relative: {_errors(proof.errors)}"
        yield f"the source writes: {readable(proof.source_text)}"
        yield f"the result writes: {readable(proof.result_text)}"
    if proof.is_doubtful:
        yield "most tokens are others: try it on recordings of your own before you use it, or take a finer recipe"
    if proof.port_errors:
        yield f"beside PyTorch: {proof.port_agreeing} of {proof.tokens} tokens are the same"
        yield f"differences, relative: {_errors(proof.port_errors)}"


def _errors(errors: dict[str, float]) -> str:
    return ", ".join(f"{STAGES[name]} {f'{error:.1e}' if error else 'none'}" for name, error in errors.items())


def _weights(model: "ModelFile | Checkpoint", size_bytes: int) -> str:
    recipe = f", {model.quantization}" if model.quantization else ""
    return f"{size_bytes / 1e6:,.1f} MB, {model.dtype}{recipe}"
