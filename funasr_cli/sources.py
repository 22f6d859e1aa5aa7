"""Inputs, as they were asked for, to sources of samples."""

from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace

from funasr_cli.audio.readers import open_reader
from funasr_cli.audio.recording import Source, open_recording
from funasr_cli.audio.tape import Spool, Tape, is_pipe
from funasr_cli.errors import AudioError
from funasr_cli.inputs import Input


def open_input(input: Input, sample_rate_hz: int) -> Source:
    """What was asked for, to be read.

    Raises:
        AudioError: it is missing, a folder, unreadable or not audio, or has no such channel.
    """
    if input.problem:
        raise input.problem
    return open_recording(
        input.path, sample_rate_hz, name=input.label, clip=input.clip, channel=input.channel, pcm=input.pcm
    )


def split_channels(inputs: Iterable[Input]) -> list[Input]:
    """An input for each channel, where there are several: "call.wav [ch 1]", with its result in "call.ch1".

    Every file is opened for that. What comes out of a pipe is kept on disk until it ends, since it is read as
    often as it has channels. What has one channel stays as it is; what cannot be read fails when its turn comes.
    """
    return [part for input in inputs for part in _channels(input)]


def _channels(input: Input) -> list[Input]:
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
    return [
        replace(input, channel=number, label=f"{input.label} [ch {number}]", stem=f"{input.stem}.ch{number}")
        for number in range(1, count + 1)
    ]
