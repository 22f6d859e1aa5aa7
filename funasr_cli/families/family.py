"""Interface between a model family and the rest of the program: a `Family` of functions and data.

Families are of four kinds: most recognise speech, some insert punctuation into the text of the others, some
describe voices, and some write text.

A new family is a new folder here. Its module ``family.py`` defines ``FAMILY``, which must be added to `registry`.
`components` has the configuration of components that families share. `checkpoints.funasr` has what all FunASR
folders share, such as the files named in ``configuration.json``.

A family's readers return a `Checkpoint`, whose tensors have the names and shapes of its network. A converted model
may also need small files. There are two kinds: ``files`` are copied unchanged; ``texts``, such as a vocabulary in
JSON, are created by the reader, by name and content. The conversion writes both to the model's folder, where the
family's ``files`` finds them for `open_converted`. A checkpoint can also be loaded without being written, to
compare it with the converted model, so `checkpoints.checkpoint.read_small_json` reads such a file from either
place. A few hundred numbers, such as the means and variances of features, can instead be part of the
configuration, as tuples of floats.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from funasr_cli.capabilities import Capabilities
from funasr_cli.checkpoints.checkpoint import Checkpoint
from funasr_cli.checkpoints.format import WEIGHTS_FILE
from funasr_cli.checkpoints.keymap import Rule, Tied, model_shapes
from funasr_cli.checkpoints.quantize import Part
from funasr_cli.checkpoints.values import Options
from funasr_cli.compute.backend import nn, on_accelerator
from funasr_cli.native.decoder import NativeDecoder
from funasr_cli.native.encoder import NativeNetwork
from funasr_cli.options import AS_STORED, ENCODER_INPUTS, MLX, NATIVE

if TYPE_CHECKING:
    from funasr_cli.families.converted import ModelFile
    from funasr_cli.punctuation_model import PunctuationModel
    from funasr_cli.speaker_model import SpeakerModel
    from funasr_cli.speech_model import SpeechModel
    from funasr_cli.text_model import TextModel


SPEECH, PUNCTUATION, SPEAKERS, TEXT = "speech", "punctuation", "speakers", "text"  # kinds of models


@dataclass(frozen=True)
class Layout:
    """A third-party layout whose ``config.json`` has the family's model type.

    Attributes:
        matches: returns whether a folder with this content of ``config.json`` is in this layout.
        open: reads a folder, given its name: a hub id, or the folder's own name.
        is_ready: whether MLX can run the model without conversion.
        weights: names of the files, any of which may hold its weights.
    """

    matches: Callable[[Options], bool]
    open: Callable[[Path, str], Checkpoint]
    is_ready: bool = False
    weights: tuple[str, ...] = (WEIGHTS_FILE,)


@dataclass(frozen=True)
class NativePart:
    """A part of a network that the CPU engine computes.

    Attributes:
        prefix: the network's attribute, and the first part of its tensors' names.
        network: what replaces the attribute.
        config: returns the part's sizes, given the model's configuration; None if this model does not have it.
    """

    prefix: str
    network: type[NativeNetwork]
    config: Callable[[Any], Any]


@dataclass(frozen=True)
class Download:
    """A checkpoint on Hugging Face that ``funasr transcribe`` offers to fetch and convert.

    It is described here because asking the hub needs consent first.

    Attributes:
        name: the model's name in the question.
        hub_id: the repository.
        size_bytes: size of the files that are fetched. None: unknown.
        converted_bytes: size of the conversion to bfloat16. None: unknown.
        packages: packages that the conversion needs, and that are not always installed.
        capabilities: what the converted model can do. None: unknown.
        longest_segment_s: the longest segment that it takes.
        packed_values: numbers in the matrices that the CPU engine packs: in the decoder's, and in all others.
    """

    name: str
    hub_id: str
    size_bytes: int | None = None
    converted_bytes: int | None = None
    packages: tuple[str, ...] = ()
    capabilities: Capabilities | None = None
    longest_segment_s: float = math.inf
    packed_values: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Sources:
    """The parts of a model that is put together from several checkpoints.

    Attributes:
        folder: where parts are looked for that are not named.
        encoder: file or folder.
        adaptor: file.
        llm: folder.
        encoder_input: what goes into the encoder, one of `ENCODER_INPUTS`.
    """

    folder: Path
    encoder: Path | None = None
    adaptor: Path | None = None
    llm: Path | None = None
    encoder_input: str = ENCODER_INPUTS[0]

    @property
    def are_named(self) -> bool:
        """Whether a part is named, so that the folder need not have it."""
        return any((self.encoder, self.adaptor, self.llm))


@dataclass(frozen=True)
class Family:
    """Models of the same architecture, which differ only in sizes, weights and training.

    Every command imports this. So functions that need more than configurations and networks import their modules
    when they are called.

    Attributes:
        model_type: the family's name in ``config.json``, in our layout and others.
        upstream_classes: FunASR's names, ``model:`` in ``config.yaml``.
        title: the name in messages and tables.
        aliases: hub ids by their short names on the command line.
        config: the dataclass of its configuration, which may contain others. Each family has its own class, whose
            fields are written to ``config.json``.
        misfits: reports inconsistent values of a configuration whose numbers are in range.
        network: creates the network, without values. Its attributes have the tensors' names.
        load: turns a loaded network into a model that is ready to use, of the family's kind: a `SpeechModel`, a
            `PunctuationModel`, a `SpeakerModel` or a `TextModel`.
        capabilities: returns what a model with this configuration can do.
        open_funasr: reads a FunASR folder, given the content of its ``config.yaml`` and its name; None if
            FunASR has no such model.
        layouts: third-party layouts that have a ``config.json``, in order of precedence.
        open_pickle: reads a pickle in a folder without a configuration, given its path and the folder's name; None
            if the family has no such layout. `registry.of_pickle` chooses the family.
        open_sources: puts a model together from parts in several files and folders; None if the family's
            checkpoints are whole.
        has_sources: tells whether a folder has such parts.
        rules: how tensors are renamed and converted, by the layout's name, for ``convert --explain``.
        files: finds the files other than weights in a converted folder, by name.
        vocabulary_problems: yields the name of each unsuitable file, and what is wrong with it.
        parts: the matrices that each quantization option selects. The first part's recipe is reported as the
            model's.
        exact: prefixes of tensors that are stored in float32, regardless of the other types.
        tied: returns which head is not stored because it equals an embedding.
        with_languages: returns the same configuration with other languages; None if a model's languages are fixed.
        upstream_options: returns FunASR's ``config.yaml`` and the decoder's ``config.json`` for a configuration,
            given the decoder's folder; None if results are not compared with PyTorch.
        readme: lines for the README of a converted model.
        hub_files: patterns of files to download in addition to those that all families need, such as
            ``*.bpe.model``, or ``*/vocab.json`` in any folder.
        weights: names of weights in addition to ``model.safetensors`` and ``model.pt``, the best first.
        modelscope_ids: ids on ModelScope that differ from the id in `aliases`, by the latter.
        downloads: what ``funasr transcribe`` fetches for a short name, or for a hub id that has none.
        ctc_on_modelscope: short names of models that have a CTC branch on ModelScope, and none on Hugging Face.
        native: the parts that the CPU engine computes; none if MLX computes everything.
        kind: what its models are for: `SPEECH`, `PUNCTUATION`, `SPEAKERS` or `TEXT`.
        tables: names of tensors whose rows are looked up one by one in the file, and never loaded as a whole. They
            are stored in float16 instead of bfloat16.
        only_on_modelscope: ids in `aliases` that Hugging Face does not have.
        float32_engine: what computes float32 on a CPU, unless an engine is asked for.
        int8_clips: recordings on which int8 must write the same as float32; none: the demo's clips.
        half: the 16-bit type of its weights; float16 where bfloat16 would be too coarse.
    """

    model_type: str
    title: str
    aliases: Mapping[str, str]
    config: type
    misfits: Callable[[Any], Iterable[str]]
    network: Callable[[Any], nn.Module]
    load: "Callable[[LoadedModel], SpeechModel | PunctuationModel | SpeakerModel | TextModel]"
    capabilities: Callable[[Any], Capabilities]
    rules: Mapping[str, tuple[Rule, ...]]
    files: Callable[[Path, Any], Mapping[str, Path]]
    vocabulary_problems: Callable[[Checkpoint], Iterable[tuple[str, str]]]
    upstream_classes: tuple[str, ...] = ()
    open_funasr: Callable[[Path, Options, str], Checkpoint] | None = None
    layouts: tuple[Layout, ...] = ()
    open_pickle: Callable[[Path, str], Checkpoint] | None = None
    open_sources: Callable[[Sources], Checkpoint] | None = None
    has_sources: Callable[[Path], bool] = lambda _: False
    parts: tuple[Part, ...] = ()
    exact: tuple[str, ...] = ()
    tied: Callable[[Any], Tied | None] = lambda _: None
    with_languages: Callable[[Any, tuple[str, ...]], Any] | None = None
    upstream_options: Callable[[Any, str], tuple[Options, Options]] | None = None
    readme: Callable[[Any], Iterable[str]] = lambda _: ()
    hub_files: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    modelscope_ids: Mapping[str, str] = field(default_factory=dict)
    downloads: Mapping[str, Download] = field(default_factory=dict)
    ctc_on_modelscope: tuple[str, ...] = ()
    native: tuple[NativePart, ...] = ()
    kind: str = SPEECH
    tables: tuple[str, ...] = ()
    only_on_modelscope: tuple[str, ...] = ()
    float32_engine: str = MLX
    int8_clips: tuple[Path, ...] = ()
    half: str = "bfloat16"

    @property
    def compared(self) -> str:
        """What int8 is compared with float32 on, for messages."""
        return "prompts" if self.kind == TEXT else "clips"


@dataclass(frozen=True)
class LoadedModel:
    """A network with its weights, and everything that its family needs to create a model from it.

    ``dtype`` is the type to compute in, as in `load_model`. ``texts`` are those of a `Checkpoint`. ``native`` are
    the parts of the network that the CPU engine computes.
    """

    network: nn.Module
    family: Family
    file: "ModelFile"
    files: Mapping[str, Path]
    folder: Path
    dtype: str
    texts: Mapping[str, str] = field(default_factory=dict)
    native: tuple[NativeNetwork, ...] = ()

    @property
    def name(self) -> str:
        """Name of the model's source, or of its folder if the source is unknown."""
        return self.file.source.get("source") or self.folder.name

    @property
    def parameters(self) -> int:
        """Number of parameters of the network, regardless of their stored type."""
        return sum(map(math.prod, model_shapes(self.family.network(self.file.config)).values()))

    @property
    def weights_type(self) -> str:
        """Type of the weights during computation, for logs and tables."""
        quantization = self.file.quantization
        stored = f"{self.file.dtype}, {quantization}" if quantization else self.file.dtype
        if self.native:
            return f"{', '.join(self._native_types)} (stored as {stored})"
        return stored if self.dtype in (AS_STORED, stored) else f"{self.dtype} (stored as {stored})"

    @property
    def native_bytes(self) -> int:
        """Memory of the weights that MLX does not hold."""
        return sum(part.size_bytes for part in self.native)

    @property
    def _native_types(self) -> list[str]:
        """Number type of the engine's products: that of the decoder, and that of the encoder if it is another.

        The decoder's weights are named if some of them have fewer bits than its products' inputs.
        """
        decoders = [part for part in self.native if isinstance(part, NativeDecoder)]
        types, bits = {part.type for part in decoders}, sorted({bits for part in decoders for bits in part.bits})
        weights = [f"{' and '.join(f'{each}-bit' for each in bits)} weights"] if bits[:1] == [4] else []
        others = {part.type for part in self.native} - types
        return [*types, *weights, *(f"encoder {each}" if types else each for each in others)]

    @property
    def engine(self) -> str:
        """What computes the model: engine, number type, instruction set or device."""
        if self.native:
            return f"{NATIVE} {', '.join([*self._native_types, self.native[0].instruction_set])}"
        quantization = self.file.quantization
        stored = f"{quantization.usual.bits}-bit" if quantization else self.file.dtype
        return f"{MLX} {stored if self.dtype == AS_STORED else self.dtype}, {'GPU' if on_accelerator() else 'CPU'}"
