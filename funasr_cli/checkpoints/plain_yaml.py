"""YAML of a checkpoint, as plain as JSON. Apart, since loading a model needs none."""

from pathlib import Path
from typing import Any, NoReturn

import yaml

from funasr_cli.checkpoints.untrusted import MOST_DIGITS, MOST_LEVELS, read_limited, reason_in_a_line
from funasr_cli.errors import ModelError

YAML_LIMIT_BYTES = 1 << 16  # the parser takes a second for these


class PlainLoader(yaml.SafeLoader):
    """Mappings, lists and scalars as they stand: no anchor, alias or tag, no key twice, no great depth."""

    levels = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Refuse what a configuration does not need, before it is followed."""
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            _refuse_yaml("anchors and aliases are not read", event.start_mark)
        if event.tag is not None:
            _refuse_yaml("tags are not read", event.start_mark)
        self.levels += 1
        if self.levels > MOST_LEVELS:
            _refuse_yaml(f"nested deeper than {MOST_LEVELS} levels", event.start_mark)
        node = super().compose_node(parent, index)
        self.levels -= 1
        if isinstance(node, yaml.ScalarNode):
            node.value.encode()  # half a character could not be printed
            if node.tag == DATE_TAG:
                node.tag = TEXT_TAG
            if node.tag == MERGE_TAG:
                _refuse_yaml("keys are not merged", event.start_mark)
            if node.tag in NUMBER_TAGS and len(node.value) > MOST_DIGITS:
                _refuse_yaml(f"a number of {len(node.value)} digits", event.start_mark)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse a key that stands twice; SafeLoader takes the last."""
        mapping = super().construct_mapping(node, deep)
        if len(mapping) < len(node.value):
            _refuse_yaml("a key stands twice in one mapping", node.start_mark)
        return mapping


TAG = "tag:yaml.org,2002:"
TEXT_TAG, DATE_TAG, MERGE_TAG = (f"{TAG}{kind}" for kind in ("str", "timestamp", "merge"))
NUMBER_TAGS = (f"{TAG}int", f"{TAG}float")


def _refuse_yaml(problem: str, mark: Any) -> NoReturn:
    raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        ModelError: missing, unreadable, not a mapping, too large or too deep, or with anything in it that refers
            to something else.
    """
    content = read_limited(path, YAML_LIMIT_BYTES)
    try:
        parsed = yaml.load(content.decode(), PlainLoader)  # a SafeLoader
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise ModelError(f"{path}: cannot be read ({reason_in_a_line(error)})") from error
    if not isinstance(parsed, dict):
        raise ModelError(f"{path}: not a mapping")
    return parsed
