"""Decode compressed audio with PyAV: FLAC, MP3, Ogg, m4a, webm and other formats of FFmpeg.

Damaged parts are replaced with silence of the same length, and decoding continues after them. The length comes
from the next time stamp or, in formats without time stamps, from the number of damaged bytes.
"""

import re
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from itertools import chain, pairwise

import av
import numpy as np

from funasr_cli.audio.joins import MP3_HEAD_BYTES, find_recording, stated_frames, tag_bytes
from funasr_cli.audio.layouts import LEFTOVER_S, LOWEST_RATE_HZ, unread_sound
from funasr_cli.audio.recording_file import RecordingFile
from funasr_cli.audio.samples import as_float32, at_one_rate
from funasr_cli.audio.tape import Tape
from funasr_cli.errors import AudioError

DTYPES = {"u8": "u1", "s16": "i2", "s32": "i4", "s64": "i8", "flt": "f4", "dbl": "f8"}  # with a suffix "p": planar
GAP_S = 0.1  # a time stamp that is ahead of the samples by more than this means silence
SHORTEST_LOSS_S = 0.005
NEAR_S = 0.1  # losses closer together than this are merged
LOUDEST = 32.0  # 30 dB above full scale: louder frames were decoded from garbage
LONGEST_GAP_S = 3600.0  # a longer gap is an error in the time stamps
NEW_CLOCK_S = 1.0  # time stamps that jump back by more than this have been reset
FILLER_S = 1.0
SLACK_S = 0.5  # largest error of a stated length: a few frames, which last 128 ms each at 8 kHz
AVI_CHUNK = re.compile(rb"\x00?(?:ix\d\d|idx1|JUNK|LIST|RIFF)")  # not packets: FFmpeg skips these
AVI_HEAD_BYTES = 8  # before each packet
ROOM_BYTES = 40  # a larger distance between packets means damage
PADDING_BYTES = 2
NEAR_PACKETS = 200  # number of packets whose sizes serve to estimate how many were lost
LONGEST_JUNK_BYTES = 1 << 20
MATROSKA_TIME = re.compile(r"(\d+):(\d+):(\d+(?:\.\d+)?)")
MOST_FAULTS = 1000  # errors of a container in a row before decoding stops
# Codecs configured to raise an error on a wrong checksum. The others mark the frame as corrupt.
CHECKS = dict.fromkeys(("flac", "tta", "wavpack", "ape"), "crccheck+explode")


@dataclass(frozen=True)
class Container:
    """Properties of a container format that decoding relies on."""

    has_length: bool = False  # states its length; FFmpeg estimates that of the others from sizes and bit rates
    has_gaps: bool = False  # time stamps may have gaps, which are silence
    gap_is_loss: bool = False  # a gap in the time stamps means that audio is missing
    from_zero: bool = False  # time stamps count from 0, even if the first one is later
    by_bytes: bool = False  # has no time stamps and stores frames one after the other; FFmpeg counts packets
    in_order: bool = False  # stores packets one after the other
    by_header: bool = False  # a header or index states what to read, and the file may contain more


CONTAINERS = {  # by FFmpeg's name for the format, or the first of several
    "mov": Container(has_gaps=True),
    "matroska": Container(has_length=True, has_gaps=True, in_order=True),
    "flv": Container(has_length=True, has_gaps=True, in_order=True),
    "asf": Container(has_length=True, has_gaps=True, gap_is_loss=True),
    **dict.fromkeys(("mpegts", "mpeg"), Container(has_gaps=True, gap_is_loss=True)),
    "ogg": Container(has_length=True, gap_is_loss=True),
    "flac": Container(has_length=True, gap_is_loss=True, from_zero=True),
    **dict.fromkeys(
        ("wv", "tta", "caf", "ape"), Container(has_length=True, gap_is_loss=True, from_zero=True, by_header=True)
    ),
    **dict.fromkeys(("wav", "w64", "aiff"), Container(has_length=True, by_header=True)),
    **dict.fromkeys(("mp3", "aac", "ac3", "eac3", "amr", "dts"), Container(by_bytes=True)),
    "avi": Container(by_header=True),
    **dict.fromkeys(("au", "dsf", "iff", "ircam", "mxf", "nistsphere", "pvf", "rm"), Container()),
}
# Without limits, FFmpeg takes text files for audio and follows playlists to other files and into the network.
OPTIONS = {"format_whitelist": ",".join(CONTAINERS), "protocol_whitelist": "none"}
# Titles may contain bytes that are not text. PyAV 19 and later always accept them.
LENIENT = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}

av.logging.set_level(None)  # errors are reported here, so FFmpeg must not print its own messages


class MediaReader:
    """Reader of the first audio stream in a file or pipe, with FFmpeg's libraries."""

    def __init__(self, tape: Tape, name: str, begin: int = 0):
        """Take over a tape with a recording that begins at byte `begin`; `close` closes the tape.

        Raises:
            AudioError: the recording has no audio stream, or none of it can be decoded.
            Exception: it cannot be read. Errors of FFmpeg and others, such as UnicodeDecodeError, are passed on.
        """
        self._name = name
        self.live = tape.size is None
        self.lost: list[tuple[int, int]] = []
        self._broke_off = False
        self._first_pts: int | None = None
        self._passed_bytes = 0
        self.end_byte = self._sound_end = begin
        self._sizes = _Sizes()
        with ExitStack() as opened:
            opened.callback(tape.close)
            self._file, frames_at = RecordingFile(tape, begin), begin
            while size := tag_bytes(tape.at(frames_at, 32)):
                frames_at += size
            head = tape.at(frames_at, MP3_HEAD_BYTES)
            if begin:
                tape.seek(begin)
            self._container = opened.enter_context(av.open(self._file, options=OPTIONS, **LENIENT))
            if not self._container.streams.audio and not self._container.streams.video:
                raise EOFError  # its index is missing or incomplete
            if not self._container.streams.audio:
                raise AudioError(f"{name}: contains no audio", code="audio-no-sound")
            self._format = self._container.format.name.split(",")[0]
            self._kind = CONTAINERS[self._format]
            if self._format == "wav" and self._container.streams.audio[0].codec_context.name.startswith("mp3"):
                self._kind = replace(self._kind, by_bytes=True)
            self._stream = self._container.streams.audio[0]
            self._is_sound_avi = self._format == "avi" and not self._container.streams.video
            self._is_by_bytes = self._kind.by_bytes or self._is_sound_avi
            self._sizes.head_bytes = AVI_HEAD_BYTES * self._is_sound_avi
            codec = self._stream.codec_context
            codec.options = {"err_detect": CHECKS.get(codec.name, "crccheck")}
            self._frames = self._decoded()
            self._first = next(self._frames, None)  # its format is more reliable than the container's header
            if self._first is None:
                raise AudioError(f"{name}: none of its audio can be decoded", code="audio-unreadable")
            frame, self._first_byte = self._first[0], self.end_byte
            self.sample_rate_hz: int = frame.sample_rate
            self.channels: int = frame.layout.nb_channels
            if self.sample_rate_hz < LOWEST_RATE_HZ:
                rate_hz, hint = self.sample_rate_hz, "its header may be damaged"
                raise AudioError(
                    f"{name}: a sample rate of {rate_hz} Hz is not supported", hint, code="audio-unreadable"
                )
            self._origin_s, self._clock_s = self._begin_s(frame), 0.0
            self.expected_s = self._stated_s(head)
            self._opened = opened.pop_all()

    def seek(self, sample: int) -> int:
        """Move to a second before a sample in FLAC, whose frames state their positions; else do nothing.

        Returns:
            The sample with which `pieces` will begin.
        """
        if sample == 0 or self._format != "flac" or self.live:
            return 0
        at_s = sample / self.sample_rate_hz
        for start_s in (max(0.0, at_s - 1), 0.0):
            with suppress(av.FFmpegError):
                stamp = round((start_s + self._origin_s) / self._stream.time_base)
                self._container.seek(stamp, stream=self._stream)
                self._frames = self._decoded()
                self._first = next(self._frames, None)
                if self._first and self._first[0].pts is not None:
                    self._clock_s = self._late_s(self._first[0], 0.0)
                    return round(self._clock_s * self.sample_rate_hz)
        return 0

    def pieces(self) -> Iterator[np.ndarray]:
        """Yield short pieces, (samples, channels) float32. Raise EOFError if the file breaks off."""
        samples = round(self._clock_s * self.sample_rate_hz)
        for piece in at_one_rate(self._timed(), self.sample_rate_hz):
            yield piece
            samples += len(piece)
        if self.live:
            self._file.tape.check()
        missing_s = None if self.expected_s is None else self.expected_s - samples / self.sample_rate_hz
        if self._broke_off and missing_s and SHORTEST_LOSS_S < missing_s <= SLACK_S:  # damaged to the very end
            self._lose(samples / self.sample_rate_hz, missing_s)
            yield np.zeros((round(missing_s * self.sample_rate_hz), self.channels), np.float32)
        if (missing_s or 0) > SLACK_S and self._format == "ogg" and find_recording(self._file.tape, self.end_byte):
            missing_s = 0.0  # the length is that of the last recording in the file
        is_cut = self._file.is_cut(self._format, self.end_byte) or (missing_s or 0) > SLACK_S
        if self._format == "mov":  # an index may follow the sound
            self.end_byte = max(self.end_byte, self._file.end or 0)
        if self._kind.by_header and not self.live:
            read_s = samples / self.sample_rate_hz
            unread_s = self._unread_share() * read_s
            if unread_s > LEFTOVER_S:
                is_cut, self.expected_s = True, max(self.expected_s or 0.0, read_s + unread_s)
        if is_cut or (self._broke_off and missing_s is None):
            raise EOFError

    def close(self) -> None:
        """Close the file."""
        self._opened.close()

    def _timed(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the rate and samples, (samples, channels), of each frame, with silence for gaps and damage."""
        clock_s, is_pcm = self._clock_s, self._stream.codec_context.name.startswith("pcm")
        for current, following in pairwise(chain([self._first], self._frames, [None])):
            assert current
            frame, lost_packets = current
            samples, rate_hz = self._samples(frame), frame.sample_rate
            duration_s = len(samples) / rate_hz
            late_s = self._late_s(frame, clock_s)
            if following and late_s:  # a time stamp is wrong if the next one contradicts it
                next_s = self._late_s(following[0], clock_s + duration_s)
                late_s = 0.0 if abs(next_s - late_s) > abs(late_s) / 2 else late_s
            if late_s > LONGEST_GAP_S or late_s < -NEW_CLOCK_S:
                self._origin_s, late_s = self._origin_s + late_s, 0.0
            gap_is_loss = self._kind.gap_is_loss or bool(self._file.fillers)
            is_lost = lost_packets > 0 or (gap_is_loss and (clock_s > 0 or self._begins_damaged(frame)))
            if self._is_by_bytes:
                late_s = max(1, round(lost_packets)) * duration_s if lost_packets else 0.0
            elif not is_lost and not self._kind.has_gaps:
                late_s = 0.0
            if late_s > (SHORTEST_LOSS_S if is_lost else GAP_S):
                if is_lost:
                    self._lose(clock_s, late_s)
                yield from _silence(late_s, rate_hz, samples.shape[1])
                clock_s += late_s
            if not is_pcm and len(samples) and np.abs(samples).max() > LOUDEST:
                self._lose(clock_s, duration_s)
                samples = np.zeros_like(samples)
            yield rate_hz, samples
            clock_s += duration_s

    def _lose(self, start_s: float, duration_s: float) -> None:
        first, last = (round(time_s * self.sample_rate_hz) for time_s in (start_s, start_s + duration_s))
        near_s = NEAR_S if self._format == "amr" else 0.0  # in AMR, a few frames after damage are garbage
        if self.lost and first - self.lost[-1][1] <= near_s * self.sample_rate_hz:
            first, _ = self.lost.pop()
        self.lost.append((first, last))

    def _late_s(self, frame: av.AudioFrame, clock_s: float) -> float:
        """Return by how many seconds a frame's time stamp is later than `clock_s`; 0 if it has none."""
        return 0.0 if frame.pts is None else float(frame.pts * frame.time_base) - self._origin_s - clock_s

    def _begins_damaged(self, frame: av.AudioFrame) -> bool:
        """Return whether the first frame that could be decoded is later than the first packet."""
        if self._kind.from_zero or self._format == "ogg" or self._is_begin_repaired:
            return True  # `_begin_s` knows where these begin
        if frame.pts is None or self._first_pts is None:
            return False
        first_s = float(self._first_pts * self._stream.time_base)
        return float(frame.pts * frame.time_base) - first_s > GAP_S

    @property
    def _is_begin_repaired(self) -> bool:
        """Whether there is a filler for damage before the first frame that could be decoded."""
        return any(at < self._first_byte for at in self._file.fillers)

    def _begin_s(self, frame: av.AudioFrame) -> float:
        """Return the time stamp at which the video or the audio begins, whichever is first."""
        sound_s = 0.0 if frame.pts is None else float(frame.pts * frame.time_base)
        if self._kind.has_gaps:
            begin_s = (self._container.start_time or 0) / av.time_base
            is_delay = self._format == "asf" and 0 < sound_s - begin_s < GAP_S  # decoder delay
            return 0.0 if self._is_begin_repaired else sound_s if is_delay else begin_s
        is_whole, stated = not (self.live or self._file.begin), self._stream.duration
        if self._kind.from_zero and is_whole and stated and sound_s < float(stated * self._stream.time_base):
            return min(0.0, sound_s)  # the first of any frames before this one has time stamp 0
        is_sound_ogg = self._format == "ogg" and not self._container.streams.video
        return 0.0 if is_sound_ogg and self._file.lacks_first_pages(self.end_byte) else sound_s

    def _decoded(self) -> Iterator[tuple[av.AudioFrame, float]]:
        """Yield all frames, each with the number of packets lost before it; 0 for the first."""
        begun, lost, damaged_bytes, fault, sizes = False, 0, 0, None, self._sizes
        ahead = NEAR_PACKETS * (self._is_by_bytes and not self.live)
        for packet, skipped_bytes in sizes.look_ahead(self._packets(), ahead):
            damaged_bytes += skipped_bytes
            self._first_pts = packet.pts if self._first_pts is None else self._first_pts
            try:
                frames = packet.decode()
            except av.FFmpegError as error:
                frames, fault = self._after_tag(packet), error
            if frames is None or any(frame.is_corrupt for frame in frames):
                # A packet larger than any before may be several, if the beginnings of the others are damaged.
                is_several = packet.size > sizes.largest or sizes.are_constant
                lost, damaged_bytes = lost + (not is_several), damaged_bytes + packet.size * is_several
                continue
            if frames or self._format == "ogg":
                self._passed(packet)
            for frame in frames:
                packets = lost + (sizes.packets_in(damaged_bytes) if damaged_bytes else 0.0)
                yield frame, packets if begun else 0.0
                begun, lost, damaged_bytes = True, 0, 0
            if frames:
                sizes.add(packet.size)
        if fault and not begun:
            raise fault
        self._broke_off |= lost + damaged_bytes > 0

    def _after_tag(self, packet: av.Packet) -> list[av.AudioFrame] | None:
        """Decode an MP3 packet that begins with a tag, as after a join of two files; None if it is damaged."""
        data = bytes(packet)
        size = tag_bytes(data)
        if not size:
            return [] if stated_frames(data[:512]) and self._format == "mp3" else None
        with suppress(av.FFmpegError):
            return list(self._stream.codec_context.decode(av.Packet(data[size:]))) if data[size:] else []
        return []

    def _packets(self) -> Iterator[tuple[av.Packet, int]]:
        """Yield the stream's packets, each with the number of bytes before it that FFmpeg skipped."""
        begin = end = None
        for packet in self._demuxed():
            skipped_bytes = 0
            if packet.pos is not None and packet.size:
                skipped_bytes = max(0, packet.pos - end) if end is not None else 0
                end = (end if packet.pos == begin else packet.pos) + packet.size  # several may share a block
                begin = packet.pos
            if self._kind.by_bytes:
                skipped_bytes = self._passed_over(packet)
            elif self._is_sound_avi and skipped_bytes > ROOM_BYTES:
                skipped = self._file.tape.at(self._file.begin + packet.pos - skipped_bytes, 5)
                skipped_bytes *= not AVI_CHUNK.match(skipped)
            elif skipped_bytes <= ROOM_BYTES or not self._kind.in_order:
                skipped_bytes = 0
            if packet.stream.index == self._stream.index:
                yield packet, skipped_bytes
            else:
                self._passed(packet)

    def _passed(self, packet: av.Packet) -> None:
        """Record how far the recording extends. Bytes appended to the file may be part of its last packet."""
        begin = self._file.begin + (packet.pos or 0) + self._passed_bytes
        self.end_byte = max(self.end_byte, begin + 1)
        end = begin + packet.size
        self._sound_end = max(self._sound_end, end + end % 2 * (self._format == "avi"))  # with padding

    def _unread_share(self) -> float:
        """Return the ratio of sound that the header omits to sound that was read. Move `end_byte` after it."""
        tape, begin, end = self._file.tape, self._file.begin, self._sound_end
        unread, self.end_byte = unread_sound(tape, begin, end)
        following = find_recording(tape, self.end_byte) or tape.size or 0
        return (unread + max(0, following - self.end_byte)) / max(1, end - begin)

    def _passed_over(self, packet: av.Packet) -> int:
        """Count the bytes before a packet that are neither packet nor tag. FFmpeg's positions omit them."""
        tape, head = self._file.tape, bytes(packet)[:32]
        if tape.size is None or packet.pos is None or not head:
            return 0
        begin = self._file.begin + packet.pos + self._passed_bytes
        if tape.at(begin, len(head)) == head:
            return 0
        count = max(0, tape.at(begin, LONGEST_JUNK_BYTES).find(head))
        self._passed_bytes += count
        return max(0, count - tag_bytes(tape.at(begin, 32)))

    def _demuxed(self) -> Iterator[av.Packet]:
        """Yield the packets of all streams. Continue after errors, up to `MOST_FAULTS` in a row."""
        faults = 0
        while faults < MOST_FAULTS:
            try:
                for packet in self._container.demux():
                    faults = 0
                    yield packet
                return
            except (av.FFmpegError, IndexError):  # IndexError: a packet of an unknown stream
                faults += 1
        self._broke_off = True

    def _samples(self, frame: av.AudioFrame) -> np.ndarray:
        """Return the samples of a frame: (samples, channels) float32."""
        channels, kind = frame.layout.nb_channels, frame.format.name.removesuffix("p")
        rows = channels if frame.format.is_planar else 1
        count = frame.samples * channels // rows
        planes = [np.frombuffer(plane, DTYPES[kind], count) for plane in list(frame.planes)[:rows]]
        return as_float32(np.stack(planes, axis=1).reshape(-1, channels), self._name)

    def _stated_s(self, head: bytes) -> float | None:
        """Return the length of the stream in seconds, if the file states it."""
        container, stream = self._container, self._stream
        if self._format == "mov":
            late_s = max(0.0, float((stream.start_time or 0) * stream.time_base) - self._origin_s)
            late_s *= not self._is_begin_repaired
            return late_s + float(stream.duration * stream.time_base) if stream.duration else None
        stated = MATROSKA_TIME.fullmatch(stream.metadata.get("DURATION", ""))
        if stated and (end_s := 3600 * float(stated[1]) + 60 * float(stated[2]) + float(stated[3])):
            return end_s - self._origin_s
        if self._format == "mp3":
            return self._stated_by_mp3_s(head)
        is_estimate = self._format == "matroska" and stream.duration is not None
        if not self._kind.has_length or is_estimate or self.live or container.streams.video:
            return None  # the video may be longer than the audio
        if self._format == "ogg" and self._file.ends_within_page():
            return None
        return container.duration / av.time_base if container.duration else None

    def _stated_by_mp3_s(self, head: bytes) -> float | None:
        """Return the length that the first frame states, unless FFmpeg finds more, as in several joined files."""
        stream, found = self._stream, stated_frames(head)
        if not found or not stream.duration or (found[1] and not found[1][-1] & 1):
            return None
        frame_samples = 1152 if self.sample_rate_hz >= 32000 else 576  # MPEG-1; MPEG-2 and 2.5
        frames_s = int.from_bytes(found[2] or found[3]) * frame_samples / self.sample_rate_hz
        stated_s = float(stream.duration * stream.time_base)
        return stated_s if abs(stated_s - frames_s) < SLACK_S else None


class _Sizes:
    """Sizes in bytes of the packets that were decoded and of those that follow."""

    def __init__(self) -> None:
        self.smallest, self.largest = sys.maxsize, 0
        self.head_bytes = 0  # header size before each packet
        self._recent: deque[int] = deque(maxlen=NEAR_PACKETS)
        self._coming: deque[tuple[av.Packet, int]] = deque()

    def add(self, size: int) -> None:
        """Add the size of a decoded packet."""
        self._recent.append(size)
        self.smallest, self.largest = min(self.smallest, size), max(self.largest, size)

    @property
    def are_constant(self) -> bool:
        """Whether all packets have the same size, except for a byte of padding."""
        return self.largest - self.smallest <= 1

    def look_ahead(self, packets: Iterator[tuple[av.Packet, int]], count: int) -> Iterator[tuple[av.Packet, int]]:
        """Yield the same packets, each once the next `count` packets are known."""
        self._coming.clear()
        for packet in packets:
            self._coming.append(packet)
            if len(self._coming) > count:
                yield self._coming.popleft()
        while self._coming:
            yield self._coming.popleft()

    def packets_in(self, damaged_bytes: int) -> float:
        """Estimate how many packets were overwritten by damage; 1 if junk was inserted between packets instead.

        If all packets have the same size, only a multiple of it can be overwritten packets.
        """
        near = [*self._recent, *(packet.size for packet, _ in self._coming if packet.size)]
        largest = 4 * np.percentile(near, 90) if near else 0.0  # larger packets are damaged
        usual = [size for size in near if size <= largest]
        packets = damaged_bytes / (float(np.mean(usual)) + self.head_bytes) if usual else 1.0
        is_whole = abs(packets - round(packets)) * self.largest <= PADDING_BYTES
        return packets if is_whole or self.head_bytes or not self.are_constant else 1.0


def _silence(duration_s: float, rate_hz: int, channels: int) -> Iterator[tuple[int, np.ndarray]]:
    left, size = round(duration_s * rate_hz), round(FILLER_S * rate_hz)
    while left > 0:
        yield rate_hz, np.zeros((min(left, size), channels), np.float32)
        left -= size
