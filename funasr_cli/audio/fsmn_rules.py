"""The rules by which FSMN-VAD decides where speech begins and ends, from the speech probability of each frame.

Source: FunASR 1.4.16, ``funasr/models/fsmn_vad_streaming/model.py`` (``FsmnVADStreaming``), as it decides with the
released configuration: ``detect_mode`` 1. What differs: probabilities are compared instead of their logarithms,
since upstream fails at 0 and 1; there is no limit on a segment's length unless one is given (upstream: 60 s); and
the dynamic schedule is looked up at every frame (upstream: every 60 s, or once in a piece of a stream).
"""

from math import inf

FRAME_MS = 10
WINDOW_FRAMES = 20  # a change from silence to speech and back is decided over this many frames...
SPEECH_FRAMES = 15  # ...by this number of frames with speech
LOOK_BACK_FRAMES = 40  # a segment begins this long before its speech was noticed: the window, and 200 ms
LOOK_AHEAD_FRAMES = 10  # kept after the end of speech
NOTICED_MS = 150  # by how much speech has been over when silence is noticed
# The dynamic schedule: up to this length of the segment (ms), a pause of this length (ms) ends it.
SCHEDULE = ((10_000, 2000), (20_000, 1000), (30_000, 800), (40_000, 600), (50_000, 400), (60_000, 200), (inf, 100))


class FsmnRules:
    """Rules for one recording.

    Attributes:
        start: first frame of the open segment, None between segments.

    Args:
        threshold: speech probability from which a frame is speech. Upstream's ``speech_noise_thres`` t is
            (1 + t) / 2 here.
        pause_ms: pause that ends a segment, upstream's ``max_end_silence_time``. None follows `SCHEDULE`.
        longest_ms: length at which a segment is ended in any case.
        look_up_frames: the schedule is looked up when this many new frames have arrived.
        held_frames: number of frames by which upstream looks it up early, since its features arrive later.
    """

    def __init__(
        self,
        threshold: float,
        pause_ms: float | None,
        *,
        longest_ms: float = inf,
        look_up_frames: int = 1,
        held_frames: int = 0,
    ):
        self.start: int | None = None
        self._threshold = threshold
        self._follows_schedule = pause_ms is None
        self._pause_ms = _counted(SCHEDULE[0][1] if pause_ms is None else pause_ms)
        self._longest = longest_ms / FRAME_MS
        self._look_up_frames, self._held_frames = look_up_frames, held_frames
        self._frame = 0  # the next one
        self._free = 0  # first frame that belongs to no segment yet
        self._silent = 0  # number of silent frames at the end of the open segment
        self._speaking_ms = 0  # length of the open segment, as the schedule counts it
        self._has_ended = False  # whether a segment has ended since the last look-up
        self._clear()

    def step(self, speech: float) -> int | None:
        """Add the next frame's speech probability; return the frame after the open segment if it has ended."""
        frame, self._frame = self._frame, self._frame + 1
        if self._follows_schedule and (frame + self._held_frames) % self._look_up_frames == 0:
            self._look_up()
        was_voiced = self._voiced
        self._slide(speech >= self._threshold)
        if self.start is None:
            if self._voiced and not was_voiced:
                self.start = max(self._free, frame - LOOK_BACK_FRAMES)
                self._silent = 0
            return None
        end = None
        self._silent = 0 if self._voiced or was_voiced else self._silent + 1
        if self._silent and self._silent * FRAME_MS >= self._pause_ms:
            end = frame + 1 - max(0, int(self._pause_ms) // FRAME_MS - LOOK_AHEAD_FRAMES - 1)
        elif frame - self.start + 1 > self._longest:
            end = frame + 1
        if end is not None:
            self.start, self._free, self._has_ended = None, end, True
            self._clear()
        return end

    def _slide(self, is_speech: bool) -> None:
        """Move the window by one frame. With exactly `SPEECH_FRAMES`, the state changes at every frame."""
        place = self._frame % WINDOW_FRAMES
        self._count += is_speech - self._window[place]
        self._window[place] = is_speech
        enough = self._count <= SPEECH_FRAMES if self._voiced else self._count >= SPEECH_FRAMES
        self._voiced ^= enough

    def _clear(self) -> None:
        """Forget the frames in the window, as after every segment."""
        self._window = [False] * WINDOW_FRAMES
        self._count = 0  # frames of speech in the window
        self._voiced = False  # what the window says

    def _look_up(self) -> None:
        """Set the pause that ends a segment by the length of the open one."""
        if self._has_ended:
            self._speaking_ms, self._has_ended = 0, False
        if self.start is not None:
            self._speaking_ms += self._look_up_frames * FRAME_MS
        self._pause_ms = _counted(next(pause for length, pause in SCHEDULE if self._speaking_ms <= length))


def _counted(pause_ms: float) -> float:
    """Return the part of a pause that is counted: silence is noticed when some of it is over."""
    return max(0.0, pause_ms - NOTICED_MS)
