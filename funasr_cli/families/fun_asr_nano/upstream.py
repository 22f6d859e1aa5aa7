"""Conversion between FunASR's ``config.yaml`` with the decoder's ``config.json``, and our configuration.

Missing keys get upstream's default; a comment names the upstream class. Switches that the tensors settle, such as
``use_lora`` or ``freeze``, are ignored. Errors name the file only if raised within `stated_in`.
"""

import dataclasses

from funasr_cli.checkpoints.values import Misstated, Options, check_config, require, section, stated_in, value
from funasr_cli.families.components import (
    ENCODER,
    FRONTEND,
    Fields,
    encoder_config,
    fields_of,
    frontend_config,
    qwen3_config,
    stated,
    stop_token_ids,
)
from funasr_cli.families.fun_asr_nano.config import FunASRNanoConfig, PromptConfig, misfits
from funasr_cli.features.fbank import FrontendConfig
from funasr_cli.models.adaptor import AdaptorConfig
from funasr_cli.models.ctc import CTCConfig

MODEL = "FunASRNano"  # upstream's class
LLM_FOLDER = "Qwen3-0.6B"  # the decoder's folder in a release
COMPONENTS: Options = {  # names in ``config.yaml`` of the supported components
    "model": MODEL, "frontend": "WavFrontend", "audio_encoder": "SenseVoiceEncoderSmall",
    "audio_adaptor": "Transformer",
}  # fmt: skip

# Format as in `components`.
ADAPTOR: Fields = (  # llm_asr.adaptor.Transformer
    ("ffn_dim", "ffn_dim", 2048), ("layers", "n_layer", 2), ("heads", "attention_heads", 8),
    ("downsample", "downsample_rate", 2),
)  # fmt: skip


def nano_config(
    yaml: Options, llm: Options, *, ctc: bool, languages: tuple[str, ...], where: str, llm_where: str = ""
) -> FunASRNanoConfig:
    """Translate a checkpoint's ``config.yaml`` and its decoder's ``config.json``.

    Args:
        yaml: content of ``config.yaml``.
        llm: content of the decoder's ``config.json``.
        ctc: whether there is a CTC branch, as the tensors show.
        languages: ISO codes, from the checkpoint's name.
        where: path of ``config.yaml``, for errors.
        llm_where: path of ``config.json``, for errors; empty if it is the same file.

    Raises:
        ModelError: the model or its variant is not supported, or a value has the wrong type.
    """
    with stated_in(where):
        for name, supported in COMPONENTS.items():
            require(yaml, name, supported)
        frontend = _frontend(section(yaml, "frontend_conf"))
        encoder = encoder_config(section(yaml, "audio_encoder_conf"), frontend.row_width)
    with stated_in(llm_where or where):
        decoder, stops = qwen3_config(llm), stop_token_ids(llm)
    with stated_in(where):
        dataset = section(yaml, "dataset_conf")
        config = FunASRNanoConfig(
            frontend=frontend,
            encoder=encoder,
            adaptor=_adaptor(section(yaml, "audio_adaptor_conf"), encoder.width, decoder.hidden_size),
            llm=decoder,
            ctc=_ctc(yaml, encoder.width) if ctc else None,
            prompt=PromptConfig(
                system_turn=value(dataset, "sys_prompt", True),  # FunASRNano.data_load_speech
                empty_think=not value(dataset, "do_think", True),
                languages=languages,
            ),
            stop_token_ids=stops,
        )
    check_config(config, f"{where}, {llm_where}" if llm_where else where, misfits)
    return config


def _frontend(conf: Options) -> FrontendConfig:
    if conf.get("cmvn_file") is not None:
        message = "frontend_conf names a CMVN file, but Fun-ASR-Nano has none"
        raise Misstated(message, "this is another model", code="model-unsupported")
    return frontend_config(conf)


def _adaptor(conf: Options, input_dim: int, output_dim: int) -> AdaptorConfig:
    config = AdaptorConfig(  # upstream also sets the dimensions itself
        input_dim=input_dim,
        output_dim=output_dim,
        low_frame_rate=value(conf, "use_low_frame_rate", False),
        **fields_of(conf, ADAPTOR),
    )
    if config.downsample > 1 and not config.low_frame_rate:
        message = f"downsample_rate {config.downsample} without use_low_frame_rate is not supported"
        hint = "upstream itself pads the prompts of such a model with the embedding of token 0"
        raise Misstated(message, hint, code="model-unsupported")
    return config


def _ctc(yaml: Options, encoder_width: int) -> CTCConfig:
    require(yaml, "ctc_decoder", "Transformer", default="Transformer")
    conf = section(yaml, "ctc_decoder_conf")
    vocab_size = value(yaml, "ctc_vocab_size", 60515)  # FunASRNano
    conf = conf | {"use_low_frame_rate": True}  # matters only for the prompt, which CTC frames never enter
    decoder = _adaptor(conf, encoder_width, value(conf, "llm_dim", 4096))
    return CTCConfig(decoder, vocab_size, value(section(yaml, "ctc_conf"), "blank_id", vocab_size - 1))


def upstream_options(config: FunASRNanoConfig, llm_folder: str) -> tuple[Options, Options]:
    """Return ``config.yaml`` and the decoder's ``config.json`` for a config, the inverse of `nano_config`."""
    prompt = config.prompt
    adaptor = _adaptor_options(config.adaptor) | {"use_low_frame_rate": config.adaptor.low_frame_rate}
    options = COMPONENTS | {
        "frontend_conf": stated(config.frontend, FRONTEND) | {"cmvn_file": None},
        "audio_encoder_conf": stated(config.encoder, ENCODER),
        "audio_adaptor_conf": adaptor,
        "llm": "Qwen3",
        "llm_conf": {"hub": "hf", "init_param_path": llm_folder, "use_lora": False},
        "tokenizer": "HuggingfaceTokenizer",
        "tokenizer_conf": {"init_param_path": llm_folder},
        "dataset_conf": {"sys_prompt": prompt.system_turn, "do_think": not prompt.empty_think},
    }
    if config.ctc:
        options |= {
            "ctc_decoder": "Transformer",
            "ctc_decoder_conf": _adaptor_options(config.ctc.decoder),
            "ctc_vocab_size": config.ctc.vocab_size,
        }
        # A blank other than the last id needs this section, which upstream itself cannot load.
        if config.ctc.blank_id != config.ctc.vocab_size - 1:
            options["ctc_conf"] = {"blank_id": config.ctc.blank_id}
        options["dataset_conf"] |= {
            "ctc_tokenizer": "SenseVoiceTokenizer",
            "ctc_tokenizer_conf": {"vocab_path": None, "is_multilingual": True, "num_languages": 8749},
        }
    stops = list(config.stop_token_ids)
    llm_options = dataclasses.asdict(config.llm) | {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "hidden_act": "silu",
        "use_sliding_window": False,
        "eos_token_id": stops[0] if len(stops) == 1 else stops,
    }
    return options, llm_options


def _adaptor_options(adaptor: AdaptorConfig) -> Options:
    return {"encoder_dim": adaptor.input_dim, "llm_dim": adaptor.output_dim} | stated(adaptor, ADAPTOR)
