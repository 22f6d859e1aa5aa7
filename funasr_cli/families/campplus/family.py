"""The `Family` of CAM++."""

from typing import TYPE_CHECKING

from funasr_cli.capabilities import Capabilities
from funasr_cli.checkpoints import funasr
from funasr_cli.checkpoints.format import FORMAT
from funasr_cli.checkpoints.keymap import SAME
from funasr_cli.families.campplus import layouts
from funasr_cli.families.campplus.config import CAMPPlusConfig, misfits
from funasr_cli.families.family import SPEAKERS, Family, LoadedModel, NativePart
from funasr_cli.models.campplus import CAMPPlus
from funasr_cli.native.campplus import NativeFrontEnd, NativeXVector
from funasr_cli.options import NATIVE

if TYPE_CHECKING:
    from funasr_cli.speaker_model import SpeakerModel

HUB_ID = "funasr/campplus"  # trained on Chinese
ADVANCED_ID = "iic/speech_campplus_sv_zh_en_16k-common_advanced"  # trained on Chinese and English


def _load(loaded: LoadedModel) -> "SpeakerModel":
    from funasr_cli.families.campplus.model import CAMPPlusModel

    return CAMPPlusModel(loaded)


FAMILY = Family(
    model_type="campplus",
    upstream_classes=(layouts.MODEL,),
    title="CAM++",
    kind=SPEAKERS,
    aliases={"campplus": HUB_ID, "campplus-en": ADVANCED_ID},
    config=CAMPPlusConfig,
    misfits=misfits,
    network=lambda config: CAMPPlus(config.mel_bins, config.embedding_size),
    load=_load,
    capabilities=lambda _: Capabilities(languages=()),  # voices of any language
    open_funasr=layouts.open_funasr,
    open_pickle=layouts.open_pickle,
    rules={f"{funasr.LAYOUT} and {layouts.MODELSCOPE}": SAME, FORMAT: SAME},
    files=lambda folder, _: {},
    vocabulary_problems=lambda _: (),
    weights=layouts.WEIGHTS,
    modelscope_ids={HUB_ID: "iic/speech_campplus_sv_zh-cn_16k-common"},
    only_on_modelscope=(ADVANCED_ID,),
    native=(
        NativePart("head", NativeFrontEnd, lambda config: config),
        NativePart("xvector", NativeXVector, lambda config: config),
    ),
    float32_engine=NATIVE,
    half="float16",
)
