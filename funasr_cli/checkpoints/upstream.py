"""FunASR's ``config.yaml`` and the decoder's ``config.json`` -> our config.

Where the files leave something out, upstream's own default is taken (class and argument are named beside it).
What is refused is said of a file only within `stated_in`.
"""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from funasr_cli.audio.frontend import FrontendConfig
from funasr_cli.checkpoints.untrusted import quoted, readable
from funasr_cli.checkpoints.validate import check_config
from funasr_cli.errors import ModelError
from funasr_cli.models.adaptor import AdaptorConfig
from funasr_cli.models.ctc import CTCConfig
from funasr_cli.models.fun_asr_nano import FunASRNanoConfig, PromptConfig
from funasr_cli.models.qwen3 import Qwen3Config
from funasr_cli.models.sanm import SANMConfig

Options = dict[str, Any]

MODEL = "FunASRNano"  # what upstream calls its class


class _Misstated(ModelError):
    """What is wrong in a configuration; the file is not named yet."""


@contextmanager
def stated_in(where: str) -> Iterator[None]:
    """Name the file in what is said of its content.

    Raises:
        ModelError: what was raised of a configuration within.
    """
    try:
        yield
    except _Misstated as error:
        raise ModelError(f"{where}: {error.message}", error.hint) from error
    except KeyError as error:
        raise ModelError(f"{where}: does not state {error}") from error
    except (TypeError, ValueError) as error:
        raise ModelError(f"{where}: a value of the wrong type ({readable(str(error))})") from error


def nano_config(
    yaml: Options, llm: Options, *, ctc: bool, languages: tuple[str, ...], where: str, llm_where: str = ""
) -> FunASRNanoConfig:
    """Translate a checkpoint's configuration.

    Args:
        yaml: ``config.yaml``.
        llm: the decoder's ``config.json``.
        ctc: whether the checkpoint holds the tensors of the CTC branch.
        languages: ISO codes.
        where: the file that ``yaml`` stands in.
        llm_where: that of ``llm``, if it is another one.

    Raises:
        ModelError: another model, a variant that is not supported, or a value of the wrong type.
    """
    with stated_in(where):
        require_nano(yaml)
        frontend = _frontend(section(yaml, "frontend_conf"))
        encoder = _encoder(section(yaml, "audio_encoder_conf"), frontend.row_width)
    with stated_in(llm_where or where):
        decoder, stop_token_ids = _decoder(llm), _stop_token_ids(llm)
    with stated_in(where):
        dataset = section(yaml, "dataset_conf")
        config = FunASRNanoConfig(
            frontend=frontend,
            encoder=encoder,
            adaptor=_adaptor(section(yaml, "audio_adaptor_conf"), encoder.width, decoder.hidden_size),
            llm=decoder,
            ctc=_ctc(yaml, encoder.width) if ctc else None,
            prompt=PromptConfig(
                system_turn=_switch(dataset, "sys_prompt", True),  # FunASRNano.data_load_speech
                empty_think=not _switch(dataset, "do_think", True),
                languages=languages,
            ),
            stop_token_ids=stop_token_ids,
        )
    check_config(config, f"{where}, {llm_where}" if llm_where else where)
    return config


def require_nano(yaml: Options) -> None:
    """Refuse other models, and other kinds of parts.

    Raises:
        ModelError: naming what is not known.
    """
    require(yaml, "model", MODEL)
    require(yaml, "audio_encoder", "SenseVoiceEncoderSmall")
    require(yaml, "audio_adaptor", "Transformer")
    require(yaml, "frontend", "WavFrontend")
    require(section(yaml, "llm_conf"), "use_lora", False, default=False)


def section(yaml: Options, name: str) -> Options:
    """A mapping in a configuration; empty where it is left out.

    Raises:
        ModelError: something else stands there.
    """
    content = yaml.get(name)
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise _Misstated(f"{name} is not a mapping")
    return content


def whole(options: Options, name: str, default: int | None = None) -> int:
    """A whole number; the default where it is left out.

    Raises:
        ModelError: something else stands there.
        KeyError: nothing does, and there is no default.
    """
    return int(_of_type(options, name, default, (int,), "a whole number"))


def _number(options: Options, name: str, default: float | None = None) -> float:
    return float(_of_type(options, name, default, (int, float), "a number"))


def _switch(options: Options, name: str, default: bool) -> bool:
    return bool(_of_type(options, name, default, (bool,), "true or false"))


def _of_type(options: Options, name: str, default: Any, types: tuple[type, ...], what: str) -> Any:
    value = options[name] if default is None else options.get(name, default)
    if type(value) not in types:  # True is an int to isinstance
        raise _Misstated(f"a value of the wrong type ({name} is {quoted(value)}, not {what})")
    return value


def require(options: Options, name: str, supported: Any, default: Any = None) -> None:
    """Refuse every value but one.

    Raises:
        ModelError: another one stands there.
    """
    value = options.get(name, default)
    if value != supported:
        raise _Misstated(f"{name} is {quoted(value)}: not supported", f"this version knows {supported!r}")


def _frontend(conf: Options) -> FrontendConfig:
    if conf.get("cmvn_file") is not None:
        raise _Misstated("frontend_conf names a CMVN file: no Fun-ASR-Nano has one", "this is another model")
    require(conf, "snip_edges", True, default=True)
    require(conf, "upsacle_samples", True, default=True)
    return FrontendConfig(  # these defaults: WavFrontend
        sample_rate_hz=whole(conf, "fs", 16000),
        window=_of_type(conf, "window", "hamming", (str,), "a name"),
        mel_bins=whole(conf, "n_mels", 80),
        frame_length_ms=_number(conf, "frame_length", 25),
        frame_shift_ms=_number(conf, "frame_shift", 10),
        stack_frames=whole(conf, "lfr_m", 1),
        stack_step=whole(conf, "lfr_n", 1),
    )


def _encoder(conf: Options, input_dim: int) -> SANMConfig:
    return SANMConfig(  # these defaults: SenseVoiceEncoderSmall
        input_dim=input_dim,
        width=whole(conf, "output_size", 256),
        heads=whole(conf, "attention_heads", 4),
        ffn_dim=whole(conf, "linear_units", 2048),
        blocks=whole(conf, "num_blocks", 6),
        tp_blocks=whole(conf, "tp_blocks", 0),
        memory_taps=whole(conf, "kernel_size", 11),
        memory_shift=whole(conf, "sanm_shfit", 0),
    )


def _adaptor(conf: Options, input_dim: int, output_dim: int) -> AdaptorConfig:
    config = AdaptorConfig(  # these defaults: llm_asr.adaptor.Transformer; upstream overrides both dims, too
        input_dim=input_dim,
        output_dim=output_dim,
        ffn_dim=whole(conf, "ffn_dim", 2048),
        layers=whole(conf, "n_layer", 2),
        heads=whole(conf, "attention_heads", 8),
        downsample=whole(conf, "downsample_rate", 2),
        low_frame_rate=_switch(conf, "use_low_frame_rate", False),
    )
    if config.downsample > 1 and not config.low_frame_rate:
        raise _Misstated(
            f"downsample_rate {config.downsample} without use_low_frame_rate: not supported",
            "upstream itself fills such prompts up with the embedding of token 0",
        )
    return config


def _ctc(yaml: Options, encoder_width: int) -> CTCConfig:
    require(yaml, "ctc_decoder", "Transformer")
    conf = section(yaml, "ctc_decoder_conf")
    vocab_size = whole(yaml, "ctc_vocab_size", 60515)  # FunASRNano
    return CTCConfig(
        decoder=_adaptor(
            {**conf, "use_low_frame_rate": True},  # concerns the prompt alone, which CTC rows never enter
            encoder_width,
            whole(conf, "llm_dim", 4096),
        ),
        vocab_size=vocab_size,
        blank_id=whole(section(yaml, "ctc_conf"), "blank_id", vocab_size - 1),
    )


def _decoder(conf: Options) -> Qwen3Config:
    require(conf, "model_type", "qwen3")
    require(conf, "hidden_act", "silu", default="silu")
    require(conf, "use_sliding_window", False, default=False)
    rope = {**(conf.get("rope_scaling") or {}), **(conf.get("rope_parameters") or {})}
    require(rope, "rope_type", "default", default=rope.get("type", "default"))  # "type": before transformers 4.45
    if any(kind != "full_attention" for kind in conf.get("layer_types") or ()):
        raise _Misstated("layer_types names more than full_attention: not supported")
    return Qwen3Config(  # these defaults: transformers.Qwen3Config
        hidden_size=whole(conf, "hidden_size"),
        num_hidden_layers=whole(conf, "num_hidden_layers"),
        num_attention_heads=whole(conf, "num_attention_heads"),
        num_key_value_heads=whole(conf, "num_key_value_heads"),
        head_dim=whole({"head_dim": conf.get("head_dim") or 128}, "head_dim"),
        intermediate_size=whole(conf, "intermediate_size"),
        vocab_size=whole(conf, "vocab_size"),
        rope_theta=_number(
            {"rope_theta": rope.get("rope_theta") or conf.get("rope_theta") or 10_000.0}, "rope_theta"
        ),
        rms_norm_eps=_number(conf, "rms_norm_eps", 1e-6),
        tie_word_embeddings=_switch(conf, "tie_word_embeddings", False),
        attention_bias=_switch(conf, "attention_bias", False),
    )


def _stop_token_ids(llm: Options) -> tuple[int, ...]:
    """``eos_token_id`` of the decoder's config, one id or several."""
    stop = llm["eos_token_id"]
    ids = stop if isinstance(stop, list) else [stop]
    return tuple(whole({"eos_token_id": token_id}, "eos_token_id") for token_id in ids)


def upstream_options(config: FunASRNanoConfig, llm_folder: str) -> tuple[Options, Options]:
    """The inverse of `nano_config`: ``config.yaml`` and the decoder's ``config.json`` that state this config."""
    frontend, encoder, prompt = config.frontend, config.encoder, config.prompt
    options: Options = {
        "model": MODEL,
        "frontend": "WavFrontend",
        "frontend_conf": {
            "fs": frontend.sample_rate_hz,
            "window": frontend.window,
            "n_mels": frontend.mel_bins,
            "frame_length": frontend.frame_length_ms,
            "frame_shift": frontend.frame_shift_ms,
            "lfr_m": frontend.stack_frames,
            "lfr_n": frontend.stack_step,
            "cmvn_file": None,
        },
        "audio_encoder": "SenseVoiceEncoderSmall",
        "audio_encoder_conf": {
            "output_size": encoder.width,
            "attention_heads": encoder.heads,
            "linear_units": encoder.ffn_dim,
            "num_blocks": encoder.blocks,
            "tp_blocks": encoder.tp_blocks,
            "kernel_size": encoder.memory_taps,
            "sanm_shfit": encoder.memory_shift,
        },
        "audio_adaptor": "Transformer",
        "audio_adaptor_conf": _adaptor_options(config.adaptor)
        | {"use_low_frame_rate": config.adaptor.low_frame_rate},
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
        # Upstream knows a blank that is not the last id only by a setting that it cannot load.
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
    return {
        "downsample_rate": adaptor.downsample,
        "encoder_dim": adaptor.input_dim,
        "llm_dim": adaptor.output_dim,
        "ffn_dim": adaptor.ffn_dim,
        "n_layer": adaptor.layers,
        "attention_heads": adaptor.heads,
    }
