"""The vocabulary of the small SenseVoice: a SentencePiece BPE of the grammar's words, and upstream's tags."""

from __future__ import annotations

import io

import sentencepiece
import tiktoken
from sentencepiece import sentencepiece_model_pb2 as protobuf

from .grammar import lexicon

BLANK = 0  # SenseVoice's CTC blank is the id of <unk>
SPACE, SPACE_ID = "▁", 124  # in FunASR's timestamps, id 124 is a space by itself
TAGS = (
    "zh en yue ja ko nospeech Speech BGM Laughter Applause HAPPY SAD ANGRY NEUTRAL FEARFUL DISGUSTED SURPRISED "
    "OTHER EMO_UNKNOWN Cry Sneeze Breath Cough Sing Speech_Noise withitn woitn GBG Event_UNK"
).split()
NO_TEACHER = -1  # marks a label of the demo model without an equivalent piece
_CONTROL, _USER_DEFINED = 3, 4  # types of a piece
_MARKS = ".,?!:，。？！"


def build_pieces() -> bytes:
    """Learn the pieces; return the content of a `*.bpe.model` file.

    Each word of the grammar is one piece with its leading space and, if it can open a sentence, another without.
    Each Mandarin character and each digit is one piece. The tags come last, as in the release.
    """
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(_corpus()), model_writer=written, model_type="bpe", vocab_size=8000,
        hard_vocab_limit=False, add_dummy_prefix=False, remove_extra_whitespaces=False, split_by_number=False,
        normalization_rule_name="identity", character_coverage=1.0, num_threads=1, minloglevel=2,
    )  # fmt: skip
    model = protobuf.ModelProto.FromString(written.getvalue())
    pieces = list(model.pieces)
    place = next(index for index, piece in enumerate(pieces) if piece.piece == SPACE)
    pieces.insert(SPACE_ID, pieces.pop(place))  # merging depends on scores, so the order is free
    score = min(piece.score for piece in pieces)
    for tag in TAGS:
        score -= 1
        pieces.append(protobuf.ModelProto.SentencePiece(piece=f"<|{tag}|>", score=score, type=_USER_DEFINED))
    del model.pieces[:]
    model.pieces.extend(pieces)
    model.trainer_spec.vocab_size = len(pieces)
    return model.SerializeToString()


def load_pieces(content: bytes) -> sentencepiece.SentencePieceProcessor:
    """Load the result of `build_pieces`."""
    return sentencepiece.SentencePieceProcessor(model_proto=content)


def tag_ids(pieces: sentencepiece.SentencePieceProcessor, language: str, itn: bool) -> list[int]:
    """Return the labels of the four query frames; `nospeech` is the language of a clip without speech."""
    silent = language == "nospeech"
    tags = (language, "EMO_UNKNOWN" if silent else "NEUTRAL", "Event_UNK" if silent else "Speech")
    return [pieces.piece_to_id(f"<|{tag}|>") for tag in (*tags, "withitn" if itn else "woitn")]


def pieces_of_ranks(pieces: sentencepiece.SentencePieceProcessor, ranks: tiktoken.Encoding) -> list[int]:
    """Return the piece for each CTC label of the demo model, blank last; NO_TEACHER for bytes and the like."""
    found = []
    for rank in range(ranks.n_vocab):
        text = ranks.decode_single_token_bytes(rank).decode("utf-8", errors="replace").replace(" ", SPACE)
        index = pieces.piece_to_id(text)
        found.append(NO_TEACHER if index == pieces.unk_id() else index)
    return [*found, BLANK]


def _corpus() -> list[str]:
    """Return one word per line, so that no piece spans two words."""
    lines = [f"{space}{digit}" for digit in range(10) for space in ("", " ")]
    lines += _MARKS
    for language, word, opens in lexicon():
        if language == "zh":
            lines += word
            continue
        lines += {f" {word}": 0, f" {word.lower()}": 0}
        if opens:
            lines += {word.lower(): 0, word[0].upper() + word[1:]: 0}
    return lines
