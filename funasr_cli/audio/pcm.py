"""Storage formats of uncompressed samples. Imports nothing heavy."""

from dataclasses import dataclass

from funasr_cli.errors import UsageError

# Name -> type and byte order in libsndfile's terms.
PCM_ENCODINGS = {
    "u8": ("PCM_U8", "FILE"), "s8": ("PCM_S8", "FILE"),
    "s16le": ("PCM_16", "LITTLE"), "s16be": ("PCM_16", "BIG"),
    "s24le": ("PCM_24", "LITTLE"), "s24be": ("PCM_24", "BIG"),
    "s32le": ("PCM_32", "LITTLE"), "s32be": ("PCM_32", "BIG"),
    "f32le": ("FLOAT", "LITTLE"), "f32be": ("FLOAT", "BIG"),
    "f64le": ("DOUBLE", "LITTLE"), "f64be": ("DOUBLE", "BIG"),
    "mulaw": ("ULAW", "FILE"), "alaw": ("ALAW", "FILE"),
}  # fmt: skip
SAMPLE_BYTES = {
    "PCM_U8": 1, "PCM_S8": 1, "ULAW": 1, "ALAW": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8,
}  # fmt: skip
MAX_PCM_RATE_HZ = 768_000
MAX_PCM_CHANNELS = 64


@dataclass(frozen=True)
class PCMFormat:
    """The format of samples without a header: an encoding of `PCM_ENCODINGS`, with channels interleaved."""

    encoding: str
    sample_rate_hz: int = 16_000
    channels: int = 1

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UsageError: a value is impossible. The hint names the possible ones.
        """
        if self.encoding not in PCM_ENCODINGS:
            hint = f"choose from {', '.join(PCM_ENCODINGS)}"
            raise UsageError(f"unknown encoding {self.encoding!r}", hint, code="option-value")
        if not 1 <= self.sample_rate_hz <= MAX_PCM_RATE_HZ:
            hint = f"it must be 1 to {MAX_PCM_RATE_HZ} Hz"
            raise UsageError(
                f"a sample rate of {self.sample_rate_hz} Hz is out of range", hint, code="option-value"
            )
        if not 1 <= self.channels <= MAX_PCM_CHANNELS:
            hint = f"it must be 1 to {MAX_PCM_CHANNELS}"
            raise UsageError(f"{self.channels} channels are out of range", hint, code="option-value")

    @property
    def stored(self) -> "StoredFormat":
        """The same format in libsndfile's terms."""
        return StoredFormat(*PCM_ENCODINGS[self.encoding], self.sample_rate_hz, self.channels)


@dataclass(frozen=True)
class StoredFormat:
    """The format of uncompressed samples in libsndfile's terms, with channels interleaved."""

    subtype: str
    endian: str
    sample_rate_hz: int
    channels: int

    @property
    def frame_bytes(self) -> int:
        """Size of one frame, that is, one sample of each channel."""
        return SAMPLE_BYTES[self.subtype] * self.channels
