"""The output of `funasr bench --json`, and assertions that hold for every case in it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.running import invoke

STAGES = {
    "read_s", "vad_s", "features_s", "encoder_s", "ctc_s", "prefill_s", "decode_s", "text_s", "first_token_s",
    "total_s",
}  # fmt: skip
CASE = {
    "case", "model", "audio", "recordings", "batch_size", "draft", "audio_s", "segments", "tokens",
    "decoder_calls", "passes", "drafted", "accepted", "stages", "tokens_per_s", "rtf", "peak_mlx_bytes",
    "peak_process_bytes", "errors", "texts",
}  # fmt: skip


def measured(*arguments: Any, env: dict[str, str] | None = None) -> dict[str, Any]:
    """Run `funasr bench` and return its JSON output."""
    result = invoke("bench", *arguments, "--json", env=env)
    assert (result.exit_code, result.stderr) == (0, "")
    return json.loads(result.stdout)


def check_case(case: dict[str, Any], trials: int) -> None:
    """Assert what holds at any speed: no part exceeds the whole, and medians are within their range."""
    assert case.keys() - {"times_faster", "text_times_faster", "same_texts"} == CASE
    assert case["peak_mlx_bytes"] > 0
    assert case["peak_process_bytes"] > 10e6
    stages = case["stages"]
    assert stages.keys() == STAGES
    for spread in (*stages.values(), case["rtf"], case["tokens_per_s"]):
        assert 0 <= spread["low"] <= spread["median"] <= spread["high"]
        assert trials > 1 or spread["low"] == spread["high"]
    in_turn = ("features_s", "encoder_s", "text_s")  # the other stages overlap with these
    assert sum(stages[part]["low"] for part in in_turn) <= stages["total_s"]["high"]
    assert 0 < stages["first_token_s"]["low"] <= stages["total_s"]["high"]
    if trials == 1:
        parts = [stages[part]["median"] for part in ("ctc_s", "prefill_s", "decode_s")]
        assert stages["text_s"]["median"] == pytest.approx(sum(parts))
        rate = (case["tokens"] - case["segments"]) / stages["decode_s"]["median"]
        assert case["tokens_per_s"]["median"] == pytest.approx(rate)
    for kind in ("low", "median", "high"):
        assert case["rtf"][kind] == pytest.approx(stages["total_s"][kind] / case["audio_s"])
