"""KV cache of a decoder, for a batch of rows of different lengths.

A token's column is its position: every row starts in column 0 and continues after its own last column. Columns
further right hold padding or discarded tokens, and no row attends to them.

A decoder with cross-attention also has a memory: each layer's keys and values of the encoder's rows. They are
computed once, and their number is the same in all batch rows.
"""

from collections.abc import Sequence

from funasr_cli.compute.backend import mx

GROWTH_COLUMNS = 64  # columns allocated at a time, so that the buffers are not copied for every token

# One layer's keys, (batch, heads, head_dim, encoder rows), and values, (batch, heads, encoder rows, head_dim).
LayerMemory = tuple[mx.array, mx.array]
Memory = Sequence[LayerMemory]  # of all layers


class LayerCache:
    """Keys and values of one layer, kept in buffers that grow in steps."""

    def __init__(self) -> None:
        self.keys: mx.array | None = None  # (batch, kv_heads, capacity, head_dim)
        self.values: mx.array | None = None

    def put(self, keys: mx.array, values: mx.array, positions: "Positions") -> tuple[mx.array, mx.array]:
        """Append columns (batch, kv_heads, new, head_dim); return all as (batch, kv_heads, columns, head_dim)."""
        self.keys = positions.store(self.keys, keys)
        self.values = positions.store(self.values, values)
        return self.keys[:, :, : positions.columns], self.values[:, :, : positions.columns]


class Positions:
    """Destination of each row's new columns. The longest row then has `columns` columns."""

    def __init__(self, lengths: Sequence[int], new: int):
        self.columns = max(lengths) + new
        self._even = len(set(lengths)) == 1
        self._new = new
        starts = mx.array(lengths)
        # Position of the first new column: one number if all rows have the same length, else (batch,).
        self.position: int | mx.array = lengths[0] if self._even else starts
        if not self._even:
            self._rows = mx.arange(len(lengths))[:, None]  # (batch, 1)
            self._columns = starts[:, None] + mx.arange(new)  # (batch, new)

    def store(self, buffer: mx.array | None, new: mx.array) -> mx.array:
        """Write (batch, heads, new, head_dim) to a buffer, or to a longer copy if it is too short."""
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
        """Return a causal mask for `mx.fast.scaled_dot_product_attention`.

        Returns:
            None or "causal" if all rows have the same length, else (batch, 1, new, columns) bool.
        """
        if self._even:
            return "causal" if self._new > 1 else None
        return (mx.arange(self.columns) <= self._columns[:, :, None])[:, None]


def _whole_steps(columns: int) -> int:
    return -(-columns // GROWTH_COLUMNS) * GROWTH_COLUMNS


def _gathered(rows: list[tuple[mx.array, int, int]], columns: int) -> mx.array:
    """Gather (buffer, row, length) triples into one (batch, heads, capacity, head_dim) buffer.

    Only the columns in use are copied.
    """
    _, heads, _, head_dim = rows[0][0].shape
    room = mx.zeros((len(rows), heads, _whole_steps(columns), head_dim), dtype=rows[0][0].dtype)
    for index, (buffer, row, length) in enumerate(rows):
        room[index, :, :length] = buffer[row, :, :length]
    return room


class DecoderCache:
    """Caches of all layers, and the number of columns in each row, initially 0.

    `memory` has an entry for each layer if the decoder has cross-attention.
    """

    def __init__(self, layers: int, rows: int, memory: Sequence[Memory] = ()):
        """Make an empty cache; `memory` is that of each row, with a batch of 1."""
        self.layers = [LayerCache() for _ in range(layers)]
        self.lengths = [0] * rows
        self.memory = [
            (mx.concatenate([keys for keys, _ in layer]), mx.concatenate([values for _, values in layer]))
            for layer in zip(*memory, strict=True)
        ]

    @classmethod
    def joined(cls, parts: Sequence[tuple["DecoderCache", Sequence[int]]]) -> "DecoderCache":
        """Copy the chosen rows of several caches into a new one.

        At least one row must be chosen; a row may be chosen more than once.
        """
        chosen = [(cache, row, cache.lengths[row]) for cache, rows in parts for row in rows]
        joined = cls(len(parts[0][0].layers), len(chosen))
        joined.lengths = [length for _, _, length in chosen]
        for index, layer in enumerate(joined.layers):
            own = [(cache.layers[index], row, length) for cache, row, length in chosen]
            layer.keys = _gathered([(part.keys, row, length) for part, row, length in own], joined.columns)
            layer.values = _gathered([(part.values, row, length) for part, row, length in own], joined.columns)
        for index in range(len(parts[0][0].memory)):
            layers = [(cache.memory[index], mx.array(list(rows))) for cache, rows in parts if rows]
            keys, values = (mx.concatenate([layer[side][rows] for layer, rows in layers]) for side in (0, 1))
            joined.memory.append((keys, values))
        return joined

    @property
    def columns(self) -> int:
        """Number of columns in the longest row."""
        return max(self.lengths)

    def extend(self, new: int) -> Positions:
        """Add this number of columns to every row. The layers fill them next."""
        positions = Positions(self.lengths, new)
        self.lengths = [length + new for length in self.lengths]
        return positions

    def take_back(self, counts: Sequence[int]) -> None:
        """Discard this number of columns from the end of each row."""
        self.lengths = [length - count for length, count in zip(self.lengths, counts, strict=True)]
