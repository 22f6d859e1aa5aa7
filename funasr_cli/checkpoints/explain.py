"""The rules of `keymap.py` as tables, for ``funasr convert --explain`` and docs/porting.md."""

from funasr_cli.checkpoints import keymap
from funasr_cli.checkpoints.layouts import converted, funasr, mlx_audio, transformers

LAYOUTS = (
    (funasr.LAYOUT, keymap.FUNASR),
    (transformers.LAYOUT, keymap.TRANSFORMERS),
    (f"{mlx_audio.LAYOUT} and {converted.LAYOUT}", keymap.OURS),
)


def explain() -> str:
    """Markdown: a table for each layout, and what the braces in them stand for."""
    parts = [_table(f"Layout: {layout}", rules) for layout, rules in LAYOUTS]
    words = "".join(f"- `{{{name}}}`: {said}\n" for name, (_, said) in keymap.PLACEHOLDERS.items())
    return "\n".join([*parts, f"In them:\n\n{words}"])


def _table(title: str, rules: tuple[keymap.Rule, ...]) -> str:
    rows = "".join(f"| `{rule.theirs}` | `{rule.here}` | {rule.how} |\n" for rule in rules)
    return f"### {title}\n\n| there | here | how |\n|---|---|---|\n{rows}"
