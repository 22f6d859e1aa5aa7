"""Every error has a code that stays, and stands on the page of messages."""

import re
from collections import defaultdict

from support.messages import PAGE, find_raised, page

from funasr_cli.errors import ExitCode

RAISED = find_raised()
MOST_CODES = 60  # a code names a kind of failure, not a place
# Files whose errors have no codes yet.
UNCODED: set[str] = {
    "funasr_cli/alignment_picture.py",
    "funasr_cli/audio/decode.py",
    "funasr_cli/audio/media.py",
    "funasr_cli/audio/readers.py",
    "funasr_cli/audio/recording.py",
    "funasr_cli/audio/samples.py",
    "funasr_cli/audio/streams.py",
    "funasr_cli/backend.py",
    "funasr_cli/benchmarks/comparison.py",
    "funasr_cli/benchmarks/memory.py",
    "funasr_cli/benchmarks/peers/engines.py",
    "funasr_cli/benchmarks/run.py",
    "funasr_cli/benchmarks/scoring.py",
    "funasr_cli/benchmarks/synthetic.py",
    "funasr_cli/checkpoints/convert.py",
    "funasr_cli/checkpoints/export.py",
    "funasr_cli/checkpoints/format.py",
    "funasr_cli/checkpoints/hashes.py",
    "funasr_cli/checkpoints/headers.py",
    "funasr_cli/checkpoints/hub.py",
    "funasr_cli/checkpoints/huggingface.py",
    "funasr_cli/checkpoints/keymap.py",
    "funasr_cli/checkpoints/layouts/funasr.py",
    "funasr_cli/checkpoints/layouts/mlx_audio.py",
    "funasr_cli/checkpoints/layouts/transformers.py",
    "funasr_cli/checkpoints/load.py",
    "funasr_cli/checkpoints/modelscope.py",
    "funasr_cli/checkpoints/pickles.py",
    "funasr_cli/checkpoints/place.py",
    "funasr_cli/checkpoints/plain_yaml.py",
    "funasr_cli/checkpoints/quantize.py",
    "funasr_cli/checkpoints/repository.py",
    "funasr_cli/checkpoints/sources.py",
    "funasr_cli/checkpoints/untrusted.py",
    "funasr_cli/checkpoints/upstream.py",
    "funasr_cli/checkpoints/validate.py",
    "funasr_cli/cli/alignment.py",
    "funasr_cli/cli/app.py",
    "funasr_cli/cli/bench.py",
    "funasr_cli/cli/compare.py",
    "funasr_cli/cli/console.py",
    "funasr_cli/cli/convert.py",
    "funasr_cli/cli/output.py",
    "funasr_cli/cli/settings.py",
    "funasr_cli/cli/times.py",
    "funasr_cli/cli/transcribe.py",
    "funasr_cli/decoding/languages.py",
    "funasr_cli/decoding/prompt.py",
    "funasr_cli/device.py",
    "funasr_cli/inputs.py",
    "funasr_cli/options.py",
    "funasr_cli/paths.py",
    "funasr_cli/pictures.py",
    "funasr_cli/pipeline.py",
    "funasr_cli/scheduling/intake.py",
    "funasr_cli/scheduling/scheduler.py",
    "funasr_cli/subtitles.py",
    "funasr_cli/verification/check.py",
    "funasr_cli/verification/proof.py",
    "funasr_cli/verification/pytorch.py",
    "funasr_cli/verification/reference_python.py",
    "funasr_cli/verification/release/__main__.py",
    "funasr_cli/verification/release/clips.py",
    "funasr_cli/verification/release/measure.py",
    "funasr_cli/writers.py",
}


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(RAISED), "run make messages"


def test_every_error_has_a_literal_code() -> None:
    bare = [f"{one.file}:{one.line}" for one in RAISED if "" in one.codes and one.file not in UNCODED]
    assert bare == []


def test_codes_are_few_and_plain() -> None:
    codes = {code for one in RAISED for code in one.codes if code}
    assert [code for code in sorted(codes) if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", code)] == []
    assert len(codes) <= MOST_CODES


def test_a_code_has_one_exit_code() -> None:
    exits: dict[str, set[ExitCode]] = defaultdict(set)
    for one in RAISED:
        for code in filter(None, one.codes):
            exits[code].add(one.exit_code)
    assert {code: found for code, found in exits.items() if len(found) > 1} == {}


def test_every_kind_of_error_is_found() -> None:
    """The page would be empty, and up to date, if nothing were read."""
    assert len(RAISED) > 100
    assert {one.exit_code for one in RAISED} >= set(ExitCode) - {ExitCode.OK, ExitCode.PARTIAL, ExitCode.NO_SPEECH,
                                                                 ExitCode.INTERRUPTED}  # fmt: skip
