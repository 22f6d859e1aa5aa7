"""A CT-Transformer, ready to insert marks into texts; see `PunctuationModel`."""

from collections import deque
from collections.abc import Sequence

import numpy as np

from funasr_cli.compute.backend import mx
from funasr_cli.families.batches import on_clips
from funasr_cli.families.ct_punc.config import CAPABILITIES, CTPuncConfig
from funasr_cli.families.ct_punc.text import Pieces, Token, at_the_end, mark_after, tokens_of
from funasr_cli.families.ct_punc.vocabulary import UNKNOWN, converted_vocabulary
from funasr_cli.families.family import LoadedModel
from funasr_cli.punctuation_model import Marks, inserted
from funasr_cli.speech_model import Trace

MOST_ROWS = 32  # of a batch; more rows gain little
SENTENCE = "今天天气怎么样 hello world this is a test 我们开始吧"  # a conversion is compared on it


class CTPunctuation:
    """The model. All texts of a call are read together."""

    languages = CAPABILITIES.languages

    def __init__(self, loaded: LoadedModel):
        self.name, self.network = loaded.name, loaded.network
        config: CTPuncConfig = loaded.file.config
        self.label_names = config.labels
        self._ids = converted_vocabulary(loaded.files, config.vocab_size)
        self._words = self._ids if config.words else {}

    def start(self) -> "Running":
        """Begin a text."""
        return Running(self)

    def punctuate(self, texts: Sequence[str]) -> list[str]:
        """Return the texts with marks. Each is a whole text, which ends a sentence."""
        started = [Running(self) for _ in texts]
        for running, text in zip(started, texts, strict=True):
            running.put(text)
        self.decide([running.pieces for running in started], ended=True)
        marks = (mark for running in started for mark in running.end())
        return [inserted(text, mark) for text, mark in zip(texts, marks, strict=True)]

    def labels(self, text: str) -> list[int]:
        """Return the label after each token of a whole text."""
        running = Running(self)
        running.put(text)
        return running.ended_labels()

    def tokens(self, text: str) -> list[Token]:
        """Return the tokens of a text."""
        return list(tokens_of(text, self._words))

    def ids(self, tokens: Sequence[Token]) -> list[int]:
        """Return the id of each token."""
        unknown = self._ids[UNKNOWN]
        return [self._ids.get(token.text, unknown) for token in tokens]

    def decide(self, texts: Sequence[Pieces], *, ended: bool) -> None:
        """Read all pieces of these texts that are complete; if they have `ended`, also the last one."""
        while due := [(text, ids) for text in texts if (ids := text.next(ended=ended))][:MOST_ROWS]:
            rows = self.logits([ids for _, ids in due])
            for (text, _), logits in zip(due, rows, strict=True):
                text.take(logits.argmax(-1).tolist(), ended=ended)

    def logits(self, rows: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """Return the logits (tokens, labels) of each row of ids."""
        found = on_clips(self.network, [self.network.embed(ids) for ids in rows])
        mx.eval(found)
        return [np.array(each) for each in found]

    def trace(self) -> Trace:
        """Read `SENTENCE`, and keep every stage."""
        tokens = self.tokens(SENTENCE)
        [logits] = self.logits([self.ids(tokens)])  # (tokens, labels)
        return Trace({}, logits, tuple(logits.argmax(-1).tolist()), self.punctuate([SENTENCE])[0])


class Running:
    """A text that grows, part by part; see `RunningText`."""

    def __init__(self, model: CTPunctuation):
        self._model = model
        self.pieces = Pieces(model.label_names)
        self._parts: deque[list[Token]] = deque()  # whose marks are not final

    def put(self, text: str) -> None:
        """Add a part, without reading it."""
        tokens = self._model.tokens(text)
        self._parts.append(tokens)
        self.pieces.add(self._model.ids(tokens))

    def add(self, text: str) -> list[Marks]:
        """Add a part. Return the marks of all parts, in order, that are final now."""
        self.put(text)
        self._model.decide([self.pieces], ended=False)
        return self._finished()

    def end(self) -> list[Marks]:
        """End the text, and return the marks of the remaining parts. What follows is another text."""
        self.ended_labels()
        marks = self._finished()
        self.pieces = Pieces(self._model.label_names)
        return marks

    def ended_labels(self) -> list[int]:
        """Read all of the text, and return the labels of its remaining tokens."""
        self._model.decide([self.pieces], ended=True)
        names, labels = self._model.label_names, self.pieces.final
        if last := [tokens[-1] for tokens in self._parts if tokens][-1:]:
            labels[-1] = names.index(at_the_end(last[0], names[labels[-1]]))
        return labels

    def _finished(self) -> list[Marks]:
        """Return the marks of the parts, and forget them, whose labels are all final."""
        found, labels = [], self.pieces.final
        while self._parts and len(self._parts[0]) <= len(labels):
            tokens = self._parts.popleft()
            names = [self._model.label_names[label] for label in labels[: len(tokens)]]
            del labels[: len(tokens)]
            pairs = zip(tokens, names, strict=True)
            found.append(tuple((token.end, mark) for token, name in pairs if (mark := mark_after(token, name))))
        return found
