"""The models that a server offers: by name, loaded when they are needed, unloaded after a while without use."""

import gc
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from funasr_cli.capabilities import Capabilities
from funasr_cli.compute.memory import FREED_BUFFERS
from funasr_cli.errors import FunASRError, SetupError
from funasr_cli.families import registry
from funasr_cli.families.converted import read_config
from funasr_cli.hubs.find import ALIASES, DOWNLOADS
from funasr_cli.pipeline import Recognizer
from funasr_cli.server.problems import Problem
from funasr_cli.speaker_model import SpeakerModel
from funasr_cli.speech_model import SpeechModel

DEFAULT_NAMES = ("", "whisper-1", "default")
Loaded = TypeVar("Loaded")
SPEAKERS = "speakers"  # among the capabilities of all models if the server has a model of voices
LONGEST_WAIT_S = 3600.0  # until models are looked at again; a thread cannot wait for centuries
OTHERS_MODELS = ("gpt-",)  # beginnings of names that stand for the default model, too


@dataclass
class Offer:
    """A model that is offered."""

    name: str
    folder: Path
    speakers: bool = False  # whether a request can ask who speaks
    recognizer: Recognizer | None = None  # while it is loaded
    used: float = 0.0  # when it was last in use, as `time.monotonic` counts

    @property
    def created(self) -> int:
        """When the model was made, in seconds since 1970."""
        return int(self.folder.stat().st_mtime) if self.folder.exists() else 0

    @cached_property
    def able(self) -> Capabilities:
        """What the model can do, without loading it; nothing if its configuration cannot be read."""
        try:
            return registry.capabilities(read_config(self.folder).config)
        except (FunASRError, OSError):
            return Capabilities(languages=())

    @property
    def entry(self) -> dict[str, Any]:
        """The entry in the list of models: OpenAI's fields, and what the model can do."""
        owner, recognizer = self.name.rpartition("/")[0] or "local", self.recognizer
        able = recognizer.capabilities if recognizer else self.able
        known = {"id": self.name, "object": "model", "created": self.created, "owned_by": owner}
        names = [*able.names(), *([SPEAKERS] if self.speakers else [])]
        return known | {"languages": list(able.languages), "capabilities": names}


class Shelf:
    """The models of a server. The first one is the default.

    Names are looked up in any thread. Only the thread that computes may load and unload.
    """

    def __init__(
        self,
        folders: Mapping[str, Path],
        load: Callable[[Path], Recognizer],
        keep_alive_s: float,
        load_voices: Callable[[], SpeakerModel] | None = None,
    ):
        """Offer models.

        Args:
            folders: of all models, by name.
            load: loads the model in a folder.
            keep_alive_s: seconds for which a model stays loaded that is not in use.
            load_voices: loads the model that tells speakers apart, which is small and stays loaded; None: there is
                none.
        """
        self._load_voices = load_voices
        self._voices: SpeakerModel | None = None
        self._offers = {name: Offer(name, folder, load_voices is not None) for name, folder in folders.items()}
        self._load, self._keep_alive_s = load, keep_alive_s

    @property
    def default(self) -> Offer:
        """The model for requests that name none."""
        return next(iter(self._offers.values()))

    def entries(self) -> list[dict[str, Any]]:
        """Return the list of models."""
        return [offer.entry for offer in self._offers.values()]

    def find(self, name: str | None) -> Offer:
        """Return the model of this name, its last part or its short name; raise a `Problem` if there is none.

        A name is only looked up: no path and no hub id in a request is ever opened or downloaded.
        """
        name = (name or "").strip()
        if name in self._offers:
            return self._offers[name]
        if name in DEFAULT_NAMES or name.startswith(OTHERS_MODELS):
            return self.default
        ids = {name, ALIASES.get(name, name), DOWNLOADS[name].hub_id if name in DOWNLOADS else name}
        found = [offer for offer in self._offers.values() if ids & {offer.name, offer.name.rpartition("/")[2]}]
        if not found:
            known = ", ".join(self._offers)
            raise Problem(
                404, f"no model {name[:100]!r} here; there are: {known}", "model_not_found", param="model"
            )
        return found[0]

    def recognizer(self, offer: Offer, in_use: Collection[SpeechModel]) -> Recognizer:
        """Return a loaded model. If memory is short, unload others that are not in use, the oldest first."""
        if not offer.recognizer:
            offer.recognizer = self._with_room(lambda: self._load(offer.folder), in_use)
        offer.used = time.monotonic()
        return offer.recognizer

    @property
    def tells_speakers_apart(self) -> bool:
        """Whether there is a model that tells speakers apart."""
        return self._load_voices is not None

    def voices(self, in_use: Collection[SpeechModel]) -> SpeakerModel | None:
        """Return the model that tells speakers apart, loaded as `recognizer` loads; None if there is none."""
        if self._load_voices and not self._voices:
            self._voices = self._with_room(self._load_voices, in_use)
        return self._voices

    def _with_room(self, load: Callable[[], Loaded], in_use: Collection[SpeechModel]) -> Loaded:
        while True:
            try:
                return load()
            except SetupError as error:
                idle = sorted(self._idle(in_use), key=lambda idle: idle.used)
                if error.code != "memory-short" or not idle:
                    raise
                self._unload(idle[0])

    def unload_old(self, in_use: Collection[SpeechModel]) -> float | None:
        """Unload models that have not been in use for long; return the seconds until the next one, if any."""
        now = time.monotonic()
        for offer in self._offers.values():
            if offer.recognizer and offer.recognizer.model in in_use:
                offer.used = now
        left = {offer.name: offer.used + self._keep_alive_s - now for offer in self._idle(in_use)}
        for name in [name for name, left_s in left.items() if left_s <= 0]:
            self._unload(self._offers[name])
            del left[name]
        return min((LONGEST_WAIT_S, *left.values())) if left else None

    def _idle(self, in_use: Collection[SpeechModel]) -> list[Offer]:
        loaded = (offer for offer in self._offers.values() if offer.recognizer)
        return [offer for offer in loaded if offer.recognizer and offer.recognizer.model not in in_use]

    def _unload(self, offer: Offer) -> None:
        offer.recognizer = None
        gc.collect()  # networks refer to themselves
        with FREED_BUFFERS.limited():  # gives back what is freed
            pass
