"""Pieces of a text that contains time tokens, such as Whisper's."""

from bisect import bisect_left

from funasr_cli.decoding.row_text import RowText
from funasr_cli.decoding.text import clean_text
from funasr_cli.transcript import TimedText
from funasr_cli.vocabulary import TimedVocabulary

TIME_STEP_S = 0.02  # from one time token to the next


def timed_pieces(
    text: RowText, vocabulary: TimedVocabulary, start_s: float, end_s: float
) -> tuple[TimedText, ...]:
    """Divide a text at its time tokens; a character belongs to its first token.

    Args:
        text: the text, which has ended.
        vocabulary: spells its tokens; time tokens are not text.
        start_s: start of the segment.
        end_s: end of the segment, and of a last piece that has no end.
    """
    token_ids, first_time = text.stream.token_ids, vocabulary.first_time
    origins = [first for first, _ in vocabulary.spell(token_ids)[1]]  # of each character, ascending
    pieces, begun, begun_s = list[TimedText](), 0, start_s
    for index, token_id in [*enumerate(token_ids), (len(token_ids), None)]:
        if token_id is not None and token_id < first_time:
            continue
        time_s = end_s if token_id is None else min(start_s + (token_id - first_time) * TIME_STEP_S, end_s)
        end = bisect_left(origins, index)
        if piece := clean_text(text.raw[begun:end], has_marks=False):
            pieces.append(TimedText(piece, begun_s, time_s))
        begun, begun_s = end, time_s
    return tuple(pieces)
