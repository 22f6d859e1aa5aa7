"""Plain batched decoding, without loop guard or retries: the baseline that tests compare with."""

from __future__ import annotations

from funasr_cli.compute.backend import mx
from funasr_cli.decoding.batch import Token
from funasr_cli.decoding.continuous import BatchDecoder
from funasr_cli.decoding.sampling import Sampler
from funasr_cli.models.qwen3 import Qwen3


def generate(
    llm: Qwen3, prompts: list[mx.array], stop_token_ids: tuple[int, ...], max_tokens: int, sampler: Sampler
) -> list[list[Token]]:
    """Return each row's tokens, at most `max_tokens`, up to and including a stop token or a non-finite one."""
    decoder = BatchDecoder(llm, sampler)
    rows: dict[int, list[Token]] = {number: [] for number in decoder.add(prompts)}
    while len(decoder):
        step = decoder.step()
        assert len(step) == len(decoder), "a row without a token would make this loop endless"
        for token in step:
            tokens = rows[token.row]
            tokens.append(token)
            if token.token_id in stop_token_ids or not token.finite or len(tokens) == max_tokens:
                decoder.end(token.row)
    return list(rows.values())
