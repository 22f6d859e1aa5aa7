"""The known families, by model type, upstream class, hub id and configuration."""

from collections.abc import Mapping
from typing import Any

from funasr_cli.capabilities import Capabilities
from funasr_cli.checkpoints.untrusted import quoted
from funasr_cli.checkpoints.values import Misstated
from funasr_cli.families.campplus.family import FAMILY as CAMPPLUS
from funasr_cli.families.ct_punc.family import FAMILY as CT_PUNC
from funasr_cli.families.family import Download, Family, Sources
from funasr_cli.families.fun_asr_nano.family import FAMILY as FUN_ASR_NANO
from funasr_cli.families.funasr_qwen4b.family import FAMILY as FUNASR_QWEN4B
from funasr_cli.families.paraformer.family import FAMILY as PARAFORMER
from funasr_cli.families.qwen3.family import FAMILY as QWEN3
from funasr_cli.families.sense_voice.family import FAMILY as SENSE_VOICE
from funasr_cli.families.whisper.family import FAMILY as WHISPER

FAMILIES = (FUN_ASR_NANO, SENSE_VOICE, PARAFORMER, WHISPER, FUNASR_QWEN4B, CT_PUNC, CAMPPLUS, QWEN3)
DEFAULT_ALIAS = "nano"  # the default model


def of_model_type(model_type: object) -> Family | None:
    """Return the family of a ``model_type`` in ``config.json``; None if it is unknown."""
    return next((family for family in FAMILIES if family.model_type == model_type), None)


def of_upstream_class(name: object) -> Family:
    """Return the family of a FunASR class; raise `Misstated`, for use within `stated_in`, if it is unknown."""
    for family in FAMILIES:
        if name in family.upstream_classes:
            return family
    known = ", ".join(repr(name) for family in FAMILIES for name in family.upstream_classes)
    message = f"model {quoted(name)} is not supported"
    raise Misstated(message, f"this version supports {known}", code="model-unsupported")


def of_sources(sources: Sources) -> Family | None:
    """Return the family whose models are put together from parts, if any are named or in the folder."""
    able = (family for family in FAMILIES if family.open_sources)
    return next((family for family in able if sources.are_named or family.has_sources(sources.folder)), None)


def of_config(config: Any) -> Family:
    """Return the family of a configuration."""
    return next(family for family in FAMILIES if type(config) is family.config)


def of_hub_name(name: str) -> Family | None:
    """Return the family of a short name, or of a hub id that has one; None for other names."""
    for family in FAMILIES:
        ids = (*family.aliases.items(), *family.modelscope_ids.items())
        if any(name in pair for pair in ids):
            return family
    return None


def of_download(download: Download) -> Family | None:
    """Return the family of a download; None for a repository that no family names."""
    named = (family for family in FAMILIES if download in family.downloads.values())
    return next(named, of_hub_name(download.hub_id))


def capabilities(config: Any) -> Capabilities:
    """Return the capabilities of a model with this configuration."""
    return of_config(config).capabilities(config)


def model_types() -> str:
    """Name all model types, for messages."""
    return " or ".join(family.model_type for family in FAMILIES)


def aliases() -> dict[str, str]:
    """Return hub ids by the short names of all families."""
    return _merged(*(family.aliases for family in FAMILIES))


def modelscope_ids() -> dict[str, str]:
    """Return ids on ModelScope that differ from the id in `aliases`, by the latter."""
    return _merged(*(family.modelscope_ids for family in FAMILIES))


def downloads() -> dict[str, Download]:
    """Return what ``funasr transcribe`` fetches, by short name or hub id."""
    return {name: download for family in FAMILIES for name, download in family.downloads.items()}


def ctc_on_modelscope() -> tuple[str, ...]:
    """Return short names of models that have a CTC branch on ModelScope, and none on Hugging Face."""
    return tuple(alias for family in FAMILIES for alias in family.ctc_on_modelscope)


def only_on_modelscope() -> tuple[str, ...]:
    """Return ids of models that Hugging Face does not have."""
    return tuple(hub_id for family in FAMILIES for hub_id in family.only_on_modelscope)


def other_hub_id(hub_id: str) -> str | None:
    """Return a model's id on the other hub; None if both ids are the same."""
    on_modelscope = modelscope_ids()
    return (on_modelscope | {there: here for here, there in on_modelscope.items()}).get(hub_id)


def hub_files() -> set[str]:
    """Return patterns of the files that any family needs from a repository; see `Family`."""
    return {pattern for family in FAMILIES for pattern in family.hub_files}


def other_weights() -> tuple[str, ...]:
    """Return names of weights that only some families have, the best first."""
    return tuple(name for family in FAMILIES for name in family.weights)


def of_pickle(name: str) -> Family:
    """Return the family of a pickle in a folder without a configuration: by its name, or else the first."""
    able = [family for family in FAMILIES if family.open_pickle]
    return next((family for family in able if name in family.weights), able[0])


def _merged(*tables: Mapping[str, str]) -> dict[str, str]:
    return {name: hub_id for table in tables for name, hub_id in table.items()}
