"""The known families, and errors about unknown ones."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.errors import refused

from funasr_cli.checkpoints.values import stated_in
from funasr_cli.families import registry
from funasr_cli.families.family import Family

KEYS: tuple[Callable[[Family], list[Any]], ...] = (
    lambda family: [family.model_type],
    lambda family: [*family.upstream_classes],
    lambda family: [family.config],
    lambda family: [*family.aliases],
)


@pytest.mark.parametrize("keys", KEYS)
def test_families_have_disjoint_keys(keys: Callable[[Family], list[Any]]) -> None:
    """The keys are model types, upstream classes, configurations and aliases."""
    found = [key for family in registry.FAMILIES for key in keys(family)]
    assert len(found) == len(set(found)) > 0


def test_every_family_is_known() -> None:
    folders = [path.parent.name for path in Path(registry.__file__).parent.glob("*/family.py")]
    own = [importlib.import_module(f"{registry.__package__}.{folder}.family").FAMILY for folder in folders]
    assert sorted(family.model_type for family in own) == sorted(each.model_type for each in registry.FAMILIES)


def test_each_is_found() -> None:
    for family in registry.FAMILIES:
        assert registry.of_model_type(family.model_type) is family
        assert all(registry.of_upstream_class(name) is family for name in family.upstream_classes)
        assert dataclasses.is_dataclass(family.config)
        assert family.aliases.items() <= registry.aliases().items()
        assert set(family.modelscope_ids) <= set(family.aliases.values())
        for name in (*family.aliases, *family.aliases.values(), *family.modelscope_ids.values()):
            assert registry.of_hub_name(name) is family
    assert registry.DEFAULT_ALIAS in registry.aliases()
    assert registry.of_hub_name("owner/unknown") is None


@pytest.mark.parametrize("name", [None, "Whisper", ["FunASRNano"], {}])
def test_unknown_ones(name: Any) -> None:
    """The error lists all known ones."""
    assert registry.of_model_type(name) is None
    known = [name for family in registry.FAMILIES for name in family.upstream_classes]
    with refused("model-unsupported", "config.yaml", repr(name), *known), stated_in("config.yaml"):
        registry.of_upstream_class(name)
