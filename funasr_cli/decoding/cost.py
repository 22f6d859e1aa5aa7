"""Cost of a forward pass of the decoder, and the number of proposed tokens that are worth verifying in one."""

from collections.abc import Sequence
from dataclasses import dataclass

from funasr_cli.compute.backend import mx, on_accelerator
from funasr_cli.models.layers import FEW_ROWS, FULL_ROWS
from funasr_cli.models.qwen3 import Qwen3
from funasr_cli.models.whisper_decoder import WhisperDecoder
from funasr_cli.native.decoder import NativeDecoder

# Fixed cost of a forward pass of the decoder (reading its weights), in positions; see docs/performance.md.
# On a CPU, MLX's products in other types than float32 gain nothing from computing several positions together.
CPU_FIXED_POSITIONS, CPU_SLOW_FIXED_POSITIONS, GPU_FIXED_POSITIONS = 16, 1, 128
# Of the C library with AVX512, in int8 and with 4-bit weights: a line through 1 to 16 rows, one thread.
NATIVE_FIXED_POSITIONS, NATIVE_4_BIT_FIXED_POSITIONS = 10, 5
MOST_POSITIONS = 128  # in one pass, since each one's logits take 0.6 MB in the release
CACHED_BYTES = 32 << 20  # packed weights that a processor's cache may keep from one pass to the next


@dataclass(frozen=True)
class RunCost:
    """Cost of a forward pass of the decoder, in positions."""

    fixed: int  # regardless of the number of positions
    padded: int = 0  # minimum for three or more positions

    @classmethod
    def of(cls, llm: Qwen3 | WhisperDecoder | NativeDecoder) -> "RunCost":
        """Estimate the cost for this decoder on this device."""
        if isinstance(llm, NativeDecoder):
            return cls(NATIVE_4_BIT_FIXED_POSITIONS if llm.bits == {4} else NATIVE_FIXED_POSITIONS)
        if on_accelerator():
            return cls(GPU_FIXED_POSITIONS)
        dense = llm.matrix_dtype == mx.float32
        return cls(CPU_FIXED_POSITIONS, FULL_ROWS) if dense else cls(CPU_SLOW_FIXED_POSITIONS)

    def __call__(self, positions: int) -> int:
        """Return the cost of a forward pass over `positions` tokens, summed over rows."""
        return self.fixed + (positions if positions <= FEW_ROWS else max(positions, self.padded))


def drafts_pay(llm: Qwen3 | WhisperDecoder | NativeDecoder, rows: int) -> bool:
    """Return whether drafts save more time than they take in a batch of `rows`.

    They take the CTC branch and, for each row, the making of a draft. They save little if the weights of the C
    library's decoder are not read from memory for each pass, and rows share the pass; see docs/performance.md.
    """
    if isinstance(llm, NativeDecoder):
        return rows == 1 or llm.size_bytes > CACHED_BYTES
    return RunCost.of(llm).fixed > CPU_SLOW_FIXED_POSITIONS


def tried_at_once(lengths: Sequence[int], odds: Sequence[tuple[float, float]], cost: RunCost) -> int:
    """Choose how many proposed tokens per row to verify in one pass, for the most expected tokens per cost.

    Args:
        lengths: the number of proposed tokens of each row.
        odds: `CTCDraft.odds` of each row.
        cost: of a pass.
    """
    tokens = float(len(lengths))  # expected: each row gets one in any case
    best, best_rate = 0, tokens / cost(len(lengths))
    most = min(max(lengths), MOST_POSITIONS // len(lengths) - 1)
    for tried in range(1, most + 1):
        pairs = zip(lengths, odds, strict=True)
        tokens += sum(first * further ** (tried - 1) for length, (first, further) in pairs if length >= tried)
        rate = tokens / cost(len(lengths) * (1 + tried))
        if rate > best_rate:
            best, best_rate = tried, rate
    return best
