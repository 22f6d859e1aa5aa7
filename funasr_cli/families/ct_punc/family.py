"""The `Family` of CT-Transformer."""

from typing import TYPE_CHECKING

from funasr_cli.checkpoints import funasr
from funasr_cli.checkpoints.checkpoint import Checkpoint
from funasr_cli.checkpoints.format import FORMAT
from funasr_cli.checkpoints.keymap import SAME
from funasr_cli.checkpoints.pieces import TOKENS_FILE
from funasr_cli.checkpoints.untrusted import DAMAGED_HINT, file_in
from funasr_cli.families.ct_punc.config import CAPABILITIES, CTPuncConfig, misfits
from funasr_cli.families.ct_punc.layout_funasr import MODEL, RULES, WORDS_FILE, open_funasr
from funasr_cli.families.ct_punc.vocabulary import converted_vocabulary
from funasr_cli.families.family import PUNCTUATION, Family, LoadedModel
from funasr_cli.models.punctuation import CTTransformer

if TYPE_CHECKING:
    from funasr_cli.punctuation_model import PunctuationModel

HUB_ID = "funasr/ct-punc"  # Chinese and English, 281 M values
COMMON_ID = "iic/punc_ct-transformer_zh-cn-common-vocab272727-pytorch"  # mainly Chinese, 73 M values


def _load(loaded: LoadedModel) -> "PunctuationModel":
    from funasr_cli.families.ct_punc.model import CTPunctuation

    return CTPunctuation(loaded)


def _vocabulary_problems(checkpoint: Checkpoint) -> tuple[tuple[str, str], ...]:
    converted_vocabulary(checkpoint.files, checkpoint.config.vocab_size)
    return ()


FAMILY = Family(
    model_type="ct_punc",
    upstream_classes=(MODEL,),
    title="CT-Transformer",
    kind=PUNCTUATION,
    aliases={"ct-punc": HUB_ID, "ct-punc-c": COMMON_ID},
    config=CTPuncConfig,
    misfits=misfits,
    network=lambda config: CTTransformer(config.encoder, config.vocab_size, len(config.labels)),
    load=_load,
    capabilities=lambda _: CAPABILITIES,
    open_funasr=open_funasr,
    rules={funasr.LAYOUT: RULES, FORMAT: SAME},
    files=lambda folder, _: {TOKENS_FILE: file_in(folder, TOKENS_FILE, DAMAGED_HINT)},
    vocabulary_problems=_vocabulary_problems,
    tables=("embed.weight",),
    hub_files=(TOKENS_FILE, WORDS_FILE),
    modelscope_ids={HUB_ID: "iic/punc_ct-transformer_cn-en-common-vocab471067-large"},
    only_on_modelscope=(COMMON_ID,),
)
