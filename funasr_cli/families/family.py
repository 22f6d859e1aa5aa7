"""What a family of models is to the rest of the program: one value of `Family`, of functions and data.

A new family is a folder beside this file. A module ``family.py`` in it has its ``FAMILY``, which `registry` lists.
What several families' configurations state alike is in `components`; what all of FunASR's folders have in common,
such as the files that their ``configuration.json`` names, in `checkpoints.funasr`.

A family's readers return a `Checkpoint`, whose tensors have the names and the layout of its network. Small files
that a converted model needs are of two kinds: ``files`` are copied as they are; ``texts`` are made by the reader,
such as a vocabulary as JSON, by name and content. After the conversion both lie in the folder, where the family's
``files`` finds them for `open_converted`. Since a checkpoint may be loaded without being written, to compare the
two, `checkpoints.checkpoint.read_small_json` reads such a file from either place. A few hundred numbers, such as
the means and variances of features, may also stand in the configuration, as tuples of floats.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from funasr_cli.capabilities import Capabilities
from funasr_cli.checkpoints.checkpoint import Checkpoint
from funasr_cli.checkpoints.keymap import Rule, Tied, model_shapes
from funasr_cli.checkpoints.quantize import Part
from funasr_cli.checkpoints.values import Options
from funasr_cli.compute.backend import nn
from funasr_cli.options import AS_STORED

if TYPE_CHECKING:
    from funasr_cli.families.converted import ModelFile
    from funasr_cli.speech_model import SpeechModel


@dataclass(frozen=True)
class Layout:
    """A layout of somebody else's that has a ``config.json``, with the family's model type in it.

    Attributes:
        is_it: tell by the content of ``config.json`` whether a folder is in this layout.
        open: read a folder, given what it is called: a hub id, or the folder's name.
        is_ready: MLX can compute with it as it lies there, so that it need not be converted.
    """

    is_it: Callable[[Options], bool]
    open: Callable[[Path, str], Checkpoint]
    is_ready: bool = False


@dataclass(frozen=True)
class Family:
    """Models that differ in nothing but sizes, weights and what they were taught.

    Functions that need more than configurations and networks import it when they are called: this is imported for
    every command.

    Attributes:
        model_type: what ``config.json`` calls it, ours and others'.
        upstream_class: what FunASR calls it, ``model:`` in ``config.yaml``; messages use that name, too.
        aliases: hub ids by the short names that users may type.
        config: the dataclass of its configuration, nested ones in it. It is no other family's; its fields stand in
            ``config.json``.
        misfits: name what does not add up in a configuration whose numbers are in range.
        network: make the network, without values; attributes are named as the tensors are.
        load: make a model that is ready out of one that has been read.
        capabilities: tell what a model with this configuration can do.
        open_funasr: read FunASR's folder, given what its ``config.yaml`` states, this class for one, and what the
            folder is called.
        layouts: others that have a ``config.json``; the first that fits is taken.
        rules: what becomes of each tensor, by the layout's name, for ``convert --explain``.
        files: find the files that go with the weights in a converted folder, by name.
        vocabulary_problems: tell what is wrong with the files that go with the weights: the file's name, and what.
        parts: what the options of quantization mean; the first part tells which recipe is said to be the model's.
        tied: tell which head is not stored because it is an embedding.
        with_languages: the same configuration with other languages; None where a model's languages are fixed.
        readme: lines for the page that lies beside a converted model.
        hub_files: files of a repository to download besides what all have: patterns such as ``*.bpe.model``, or
            ``*/vocab.json`` in any folder.
        modelscope_ids: hub ids on ModelScope by those of `aliases`, where they differ.
    """

    model_type: str
    upstream_class: str
    aliases: Mapping[str, str]
    config: type
    misfits: Callable[[Any], Iterable[str]]
    network: Callable[[Any], nn.Module]
    load: "Callable[[LoadedModel], SpeechModel]"
    capabilities: Callable[[Any], Capabilities]
    open_funasr: Callable[[Path, Options, str], Checkpoint]
    rules: Mapping[str, tuple[Rule, ...]]
    files: Callable[[Path, Any], Mapping[str, Path]]
    vocabulary_problems: Callable[[Checkpoint], Iterable[tuple[str, str]]]
    layouts: tuple[Layout, ...] = ()
    parts: tuple[Part, ...] = ()
    tied: Callable[[Any], Tied | None] = lambda _: None
    with_languages: Callable[[Any, tuple[str, ...]], Any] | None = None
    readme: Callable[[Any], Iterable[str]] = lambda _: ()
    hub_files: tuple[str, ...] = ()
    modelscope_ids: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LoadedModel:
    """A network with its values, and what its family needs to make a model of it.

    ``dtype`` is what it computes in, as `load_model` takes it; ``texts`` are those of a `Checkpoint`.
    """

    network: nn.Module
    family: Family
    file: "ModelFile"
    files: Mapping[str, Path]
    folder: Path
    dtype: str
    texts: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What it was converted from."""
        return self.file.source.get("source") or self.folder.name

    @property
    def parameters(self) -> int:
        """How many values its network has, whatever they are stored in."""
        return sum(map(math.prod, model_shapes(self.family.network(self.file.config)).values()))

    @property
    def weights_type(self) -> str:
        """Type of the weights as computed with, for logs and tables."""
        quantization = self.file.quantization
        stored = f"{self.file.dtype}, {quantization}" if quantization else self.file.dtype
        return stored if self.dtype in (AS_STORED, stored) else f"{self.dtype} (stored as {stored})"
