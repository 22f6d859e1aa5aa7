"""Open inputs as sources of samples."""

from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import replace

from funasr_cli.audio.readers import open_reader
from funasr_cli.audio.recording import Source, open_recording
from funasr_cli.audio.tape import STDIN, Spool, Tape, is_pipe
from funasr_cli.errors import AudioError, FunASRError
from funasr_cli.inputs import Input

PROBE_RATE_HZ = 16_000


def open_input(input: Input, sample_rate_hz: int) -> Source:
    """Open an input for reading.

    Raises:
        AudioError: it is missing, a folder, unreadable or not audio, or has no such channel.
    """
    if input.problem:
        raise input.problem
    return open_recording(
        input.path,
        sample_rate_hz,
        name=input.label,
        clip=input.clip,
        channel=input.channel,
        pcm=input.pcm,
        speaker=input.speaker,
    )


def why_unreadable(input: Input) -> FunASRError | None:
    """Open an input and close it again; return the error, if any. Of a clip, also read the beginning.

    Pipes are skipped, since they can be read only once.
    """
    if input.problem or input.path == STDIN or is_pipe(input.path):
        return input.problem
    try:
        if input.clip:
            next(open_input(input, PROBE_RATE_HZ).blocks(), None)
        else:
            open_reader(input.path, input.label, input.pcm).close()
    except AudioError as error:
        return error
    return None


def split_channels(inputs: Iterable[Input], names: Sequence[str] = ()) -> list[Input]:
    """Return an input for each channel of each file, such as "call.wav [ch 1]", whose result is "call.ch1".

    Each channel is a speaker; `names` has the names of the first ones, others: "Channel 3". Every file is
    opened to count its channels. A pipe is copied to disk until it ends, since it is read once per channel. A file
    with one channel stays as it is. A file that cannot be read fails later, in its turn.
    """
    return [part for input in inputs for part in _channels(input, names)]


def _channels(input: Input, names: Sequence[str]) -> list[Input]:
    if input.problem or input.channel is not None:
        return [input]
    try:
        if is_pipe(input.path):
            with closing(Tape(input.path, input.label)) as tape:
                spool = Spool(tape, input.label)
            input = replace(input, path=spool.path, kept=spool)
        with closing(open_reader(input.path, input.label, input.pcm)) as reader:
            count = reader.channels
    except AudioError as error:
        return [replace(input, problem=error)]
    if count == 1:
        return [input]
    called = [*names[:count], *(f"Channel {number}" for number in range(len(names) + 1, count + 1))]
    return [
        replace(
            input,
            channel=number,
            label=f"{input.label} [ch {number}]",
            stem=f"{input.stem}.ch{number}",
            speaker=speaker,
        )
        for number, speaker in enumerate(called, 1)
    ]
