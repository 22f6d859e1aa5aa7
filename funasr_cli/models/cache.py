"""Key/value cache of a decoder, for a batch of left-padded rows."""

from collections.abc import Sequence

from funasr_cli.backend import mx

GROWTH_COLUMNS = 64  # allocate this many positions at a time instead of copying at every token


class LayerCache:
    """Keys and values of one layer, kept in buffers that grow in steps.

    Args:
        prefix: a cache of one row, which every row here begins with.
        left_padding: columns in front of that, of each row.
    """

    def __init__(self, prefix: "LayerCache | None" = None, left_padding: Sequence[int] = ()) -> None:
        self.keys: mx.array | None = None  # (batch, kv_heads, capacity, head_dim)
        self.values: mx.array | None = None
        self.length: int = prefix.length if prefix else 0
        self._prefix = prefix
        self._left_padding = left_padding

    def append(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Add new positions and return all of them.

        Args:
            keys: (batch, kv_heads, new, head_dim).
            values: the same shape.

        Returns:
            Keys and values so far, each (batch, kv_heads, length, head_dim).
        """
        start, self.length = self.length, self.length + keys.shape[2]
        self.keys = self._store(self.keys, keys, start)
        self.values = self._store(self.values, values, start)
        if self._prefix:
            self._put_prefix(self._prefix)
            self._prefix = None
        return self.keys[:, :, : self.length], self.values[:, :, : self.length]

    def _put_prefix(self, prefix: "LayerCache") -> None:
        """Let each row begin behind its padding; it may cover columns that were computed for padding."""
        assert self.keys is not None
        assert self.values is not None
        assert prefix.keys is not None
        assert prefix.values is not None
        for row, padding in enumerate(self._left_padding):
            columns = slice(padding, padding + prefix.length)
            self.keys[row, :, columns] = prefix.keys[0, :, : prefix.length]
            self.values[row, :, columns] = prefix.values[0, :, : prefix.length]

    def _store(self, buffer: mx.array | None, new: mx.array, start: int) -> mx.array:
        if buffer is None or self.length > buffer.shape[2]:
            batch, heads, _, head_dim = new.shape
            filled = 0 if buffer is None else start
            room = mx.zeros((batch, heads, _whole_steps(self.length - filled), head_dim), dtype=new.dtype)
            buffer = room if buffer is None else mx.concatenate([buffer[:, :, :start], room], axis=2)
        buffer[:, :, start : self.length] = new
        return buffer

    def keep(self, other: "LayerCache", start: int, columns: int) -> None:
        """Take over so many columns of another's first row."""
        assert other.keys is not None
        assert other.values is not None
        self.keys = mx.contiguous(other.keys[:1, :, start : start + columns])
        self.values = mx.contiguous(other.values[:1, :, start : start + columns])
        self.length = columns

    def fill(self, rows: list[tuple["LayerCache", int, int]], length: int) -> None:
        """Take over rows of other caches, so that all of them end in column ``length``.

        Args:
            rows: of each the cache, its number there, and how many of its last columns belong to it.
            length: columns that are filled then; at least as many as any row has.
        """
        self.keys = _gathered([(part.keys, part.length, row, columns) for part, row, columns in rows], length)
        self.values = _gathered([(part.values, part.length, row, columns) for part, row, columns in rows], length)
        self.length = length


def _whole_steps(columns: int) -> int:
    return -(-columns // GROWTH_COLUMNS) * GROWTH_COLUMNS


def _gathered(rows: list[tuple[mx.array, int, int, int]], length: int) -> mx.array:
    """(batch, heads, capacity, head_dim) of (buffer, filled, row, columns) each; copies what is in use alone."""
    _, heads, _, head_dim = rows[0][0].shape
    room = mx.zeros((len(rows), heads, _whole_steps(length), head_dim), dtype=rows[0][0].dtype)
    for place, (buffer, filled, row, columns) in enumerate(rows):
        room[place, :, length - columns : length] = buffer[row, :, filled - columns : filled]
    return room


class DecoderCache:
    """Caches of all layers and what they share: how many columns are filled, where each row begins.

    Rows are padded on the left, so that all of them end in the same column and grow together.

    Args:
        layers: how many.
        left_padding: columns in front of each row.
        prefix: a cache of one row, which every row here begins with.
    """

    def __init__(self, layers: int, left_padding: list[int], prefix: "DecoderCache | None" = None):
        of_layers = prefix.layers if prefix else [None] * layers
        self.layers: list[LayerCache] = [LayerCache(of_layer, left_padding) for of_layer in of_layers]
        self.left_padding = left_padding
        self._padding = mx.array(left_padding)  # (batch,)

    @classmethod
    def joined(cls, parts: list[tuple["DecoderCache", list[int]]]) -> "DecoderCache":
        """A cache of chosen rows of others, without the columns that all of these rows would pad.

        Args:
            parts: caches, and which of their rows are wanted, at least one in all. They are not changed.
        """
        chosen = [(cache, row, cache.length - cache.left_padding[row]) for cache, rows in parts for row in rows]
        length = max(columns for _, _, columns in chosen)
        joined = cls(len(parts[0][0].layers), [length - columns for _, _, columns in chosen])
        for index, layer in enumerate(joined.layers):
            layer.fill([(cache.layers[index], row, columns) for cache, row, columns in chosen], length)
        return joined

    def beginning(self, columns: int) -> "DecoderCache":
        """A cache of the first row's first columns, behind its padding; copied at once, to hold no more."""
        row = DecoderCache(len(self.layers), [0])
        for layer, own in zip(row.layers, self.layers, strict=True):
            layer.keep(own, self.left_padding[0], columns)
        mx.eval([(layer.keys, layer.values) for layer in row.layers])
        return row

    @property
    def length(self) -> int:
        """Columns filled so far, padding included."""
        return self.layers[0].length

    @property
    def next_position(self) -> int | mx.array:
        """Position of the next column in each row: one number when no row is padded, else (batch,)."""
        return self.length - self._padding if any(self.left_padding) else self.length

    def attention_mask(self, new: int) -> mx.array | str | None:
        """Mask for ``new`` columns that are about to be appended.

        Returns:
            What `mx.fast.scaled_dot_product_attention` takes: None or "causal" when no row is padded, else
            (batch, 1, new, length + new) bool. A padded column attends to itself, since a row of the mask
            without a single True would turn into NaN and spread through the values.
        """
        if not any(self.left_padding):
            return "causal" if new > 1 else None
        columns = mx.arange(self.length + new)  # (length + new,)
        queries = columns[-new:, None]  # (new, 1)
        in_row = columns[None, None, :] >= self._padding[:, None, None]  # (batch, 1, length + new)
        mask = (columns[None, :] <= queries)[None] & (in_row | (columns[None, :] == queries)[None])
        return mask[:, None]
