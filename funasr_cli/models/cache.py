"""Key/value cache of a decoder, for a batch of rows of different lengths.

Column and position are the same: every row begins in column 0 and goes on behind its own last column. What lies
further right is left over from padding or from tokens that were taken back; no row attends to it.
"""

from collections.abc import Sequence

from funasr_cli.compute.backend import mx

GROWTH_COLUMNS = 64  # allocate this many positions at a time instead of copying at every token


class LayerCache:
    """Keys and values of one layer, kept in buffers that grow in steps."""

    def __init__(self) -> None:
        self.keys: mx.array | None = None  # (batch, kv_heads, capacity, head_dim)
        self.values: mx.array | None = None

    def put(self, keys: mx.array, values: mx.array, positions: "Positions") -> tuple[mx.array, mx.array]:
        """Add new columns (batch, kv_heads, new, head_dim), return all (batch, kv_heads, columns, head_dim)."""
        self.keys = positions.store(self.keys, keys)
        self.values = positions.store(self.values, values)
        return self.keys[:, :, : positions.columns], self.values[:, :, : positions.columns]


class Positions:
    """Where new columns of each row go; the longest row then has `columns`."""

    def __init__(self, lengths: Sequence[int], new: int):
        self.columns = max(lengths) + new
        self._even = len(set(lengths)) == 1
        self._new = new
        starts = mx.array(lengths)
        # Of the first new column: one number where it is the same in all rows, else (batch,).
        self.position: int | mx.array = lengths[0] if self._even else starts
        if not self._even:
            self._rows = mx.arange(len(lengths))[:, None]  # (batch, 1)
            self._columns = starts[:, None] + mx.arange(new)  # (batch, new)

    def store(self, buffer: mx.array | None, new: mx.array) -> mx.array:
        """Put (batch, heads, new, head_dim) into a buffer, or into a longer copy of it."""
        batch, heads, _, head_dim = new.shape
        missing = self.columns - (0 if buffer is None else buffer.shape[2])
        if buffer is None or missing > 0:
            room = mx.zeros((batch, heads, _whole_steps(missing), head_dim), dtype=new.dtype)
            buffer = room if buffer is None else mx.concatenate([buffer, room], axis=2)
        if self._even:
            buffer[:, :, self.columns - self._new : self.columns] = new
        else:
            buffer[self._rows, :, self._columns] = new.transpose(0, 2, 1, 3)  # (batch, new, heads, head_dim)
        return buffer

    def mask(self) -> mx.array | str | None:
        """What `mx.fast.scaled_dot_product_attention` takes: each new column sees those up to itself.

        Returns:
            None or "causal" where all rows are of the same length, else (batch, 1, new, columns) bool.
        """
        if self._even:
            return "causal" if self._new > 1 else None
        return (mx.arange(self.columns) <= self._columns[:, :, None])[:, None]


def _whole_steps(columns: int) -> int:
    return -(-columns // GROWTH_COLUMNS) * GROWTH_COLUMNS


def _gathered(rows: list[tuple[mx.array, int, int]], columns: int) -> mx.array:
    """(batch, heads, capacity, head_dim) of (buffer, row, length) each; copies what is in use alone."""
    _, heads, _, head_dim = rows[0][0].shape
    room = mx.zeros((len(rows), heads, _whole_steps(columns), head_dim), dtype=rows[0][0].dtype)
    for index, (buffer, row, length) in enumerate(rows):
        room[index, :, :length] = buffer[row, :, :length]
    return room


class DecoderCache:
    """Caches of all layers, and how many columns each row has; none at first."""

    def __init__(self, layers: int, rows: int):
        self.layers = [LayerCache() for _ in range(layers)]
        self.lengths = [0] * rows

    @classmethod
    def joined(cls, parts: Sequence[tuple["DecoderCache", Sequence[int]]]) -> "DecoderCache":
        """Copy chosen rows of caches, at least one in all, into a new one; a row may be chosen more than once."""
        chosen = [(cache, row, cache.lengths[row]) for cache, rows in parts for row in rows]
        joined = cls(len(parts[0][0].layers), len(chosen))
        joined.lengths = [length for _, _, length in chosen]
        for index, layer in enumerate(joined.layers):
            own = [(cache.layers[index], row, length) for cache, row, length in chosen]
            layer.keys = _gathered([(part.keys, row, length) for part, row, length in own], joined.columns)
            layer.values = _gathered([(part.values, row, length) for part, row, length in own], joined.columns)
        return joined

    @property
    def columns(self) -> int:
        """Number of columns in the longest row."""
        return max(self.lengths)

    def extend(self, new: int) -> Positions:
        """Give every row this number of columns more, which the layers are about to fill."""
        positions = Positions(self.lengths, new)
        self.lengths = [length + new for length in self.lengths]
        return positions

    def take_back(self, counts: Sequence[int]) -> None:
        """Let each row forget this number of its last columns."""
        self.lengths = [length - count for length, count in zip(self.lengths, counts, strict=True)]
