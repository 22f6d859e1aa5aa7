"""The small SenseVoice, built from FunASR's modules, its initialisation, and its teacher: the demo model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from funasr.models.ctc.ctc import CTC
from funasr.models.fun_asr_nano.ctc import CTC as DemoCTC
from funasr.models.llm_asr.adaptor import Transformer
from funasr.models.sense_voice.model import SenseVoiceEncoderSmall
from safetensors.torch import load_file
from torch import nn

from .features import ROW_WIDTH, STACK_FRAMES
from .network import CTC_DECODER_CONF, ENCODER_CONF, WIDTH

# Two more layers than the demo's encoder replace its CTC decoder.
SENSE_ENCODER_CONF = ENCODER_CONF | {"tp_blocks": 4}
del SENSE_ENCODER_CONF["feat_permute"]
QUERY_ROWS = 16
QUERIES = 4  # query rows before each clip: language, emotion, event, text normalisation
LANGUAGE_QUERIES = {"auto": 0, "zh": 3, "en": 4, "yue": 7, "ja": 11, "ko": 12, "nospeech": 13}
EMOTION_QUERY, EVENT_QUERY, WITH_ITN_QUERY, WITHOUT_ITN_QUERY = 1, 2, 14, 15
_SMALL = 0.1  # initial scale of a new layer, relative to the usual one


@dataclass(frozen=True)
class Cmvn:
    """Mean and variance normalisation of feature rows: (rows + shift) * scale; both (560,)."""

    shift: np.ndarray
    scale: np.ndarray

    @classmethod
    def measure(cls, frames: np.ndarray) -> Cmvn:
        """Compute the constants from (frames, 80); all stacked frames get the same ones."""
        mean, deviation = frames.mean(0, dtype=np.float64), frames.std(0, dtype=np.float64)
        shift, scale = (np.tile(values.astype(np.float32), STACK_FRAMES) for values in (-mean, 1 / deviation))
        return cls(shift, scale)

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Normalise (T, 560)."""
        return (rows + self.shift) * self.scale


class Teacher(nn.Module):
    """Encoder and CTC branch of the converted demo model."""

    def __init__(self, folder: Path, ctc_ranks: int) -> None:
        super().__init__()
        self.audio_encoder = SenseVoiceEncoderSmall(input_size=ROW_WIDTH, **ENCODER_CONF)
        self.ctc_decoder = Transformer(**CTC_DECODER_CONF)
        self.ctc = DemoCTC(odim=ctc_ranks + 1, encoder_output_size=WIDTH, blank_id=ctc_ranks)
        stored = load_file(folder / "model.safetensors")
        tensors = {
            name: (value.transpose(1, 2) if name.endswith("fsmn_block.weight") else value).float().contiguous()
            for name, value in stored.items()
            if name.split(".")[0] in ("audio_encoder", "ctc_decoder", "ctc")
        }
        self.load_state_dict(tensors)
        self.eval()

    @torch.inference_mode()
    def forward(self, features: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return log-probabilities of features without CMVN: (B, T, 560), (B,) -> (B, T, ranks + blank)."""
        encoded = self.audio_encoder(features.clone(), lengths)[0]
        return self.ctc.log_softmax(self.ctc_decoder(encoded, lengths)[0]).float()


class SenseNetwork(nn.Module):
    """SenseVoiceSmall. The state dict has upstream's keys."""

    def __init__(self, vocabulary_size: int) -> None:
        super().__init__()
        self.encoder = SenseVoiceEncoderSmall(input_size=ROW_WIDTH, **SENSE_ENCODER_CONF)
        self.ctc = CTC(odim=vocabulary_size, encoder_output_size=WIDTH)
        self.embed = nn.Embedding(QUERY_ROWS, ROW_WIDTH)

    def forward(self, features: torch.Tensor, lengths: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
        """Return logits: features after CMVN (B, T, 560), (B,), query rows (B, 4) -> (B, 4 + T, vocabulary)."""
        rows = torch.cat([self.embed(queries), features], dim=1)
        return self.ctc.ctc_lo(self.encoder(rows, lengths + QUERIES)[0])


@torch.no_grad()
def new_network(vocabulary_size: int, teacher: Teacher, cmvn: Cmvn, features: torch.Tensor) -> SenseNetwork:
    """Return a network initialised from the teacher's encoder; `features`, (rows, 560) without CMVN, a sample."""
    network = SenseNetwork(vocabulary_size)
    given = {f"encoder.{name}": value for name, value in teacher.audio_encoder.state_dict().items()}
    network.load_state_dict(given, strict=False)
    _undo_cmvn(network, cmvn, features)
    known = ENCODER_CONF["tp_blocks"]
    for layer in list(network.encoder.tp_encoders)[known:]:  # initially almost the identity
        layer.self_attn.linear_q_k_v.weight[2 * WIDTH :] *= _SMALL
        layer.self_attn.linear_q_k_v.bias[2 * WIDTH :] = 0
        layer.feed_forward.w_2.weight *= _SMALL
    network.embed.weight.normal_()
    network.ctc.ctc_lo.bias[0] += float(np.log(vocabulary_size))  # blank is by far the most frequent label
    return network


def _undo_cmvn(network: SenseNetwork, cmvn: Cmvn, features: torch.Tensor) -> None:
    """Adapt the first layer's norm to input scaled by CMVN, so that its output stays about the same."""
    norm = network.encoder.encoders0[0].norm1
    shift, scale = torch.from_numpy(cmvn.shift), torch.from_numpy(cmvn.scale)
    root = WIDTH**0.5
    before = (root * features).std(1).mean()
    after = (root * (features + shift) * scale).std(1).mean()
    norm.bias += norm.weight * root * (shift.mean() - shift) / before
    norm.weight *= after / (before * scale)


def ctc_loss(log_probs: torch.Tensor, lengths: torch.Tensor, targets: list[list[int]]) -> torch.Tensor:
    """Return the negative log-likelihood per target label; (B, T, vocabulary) without the query frames."""
    counts = torch.tensor([len(ids) for ids in targets])
    labels = torch.tensor([label for ids in targets for label in ids])
    total = F.ctc_loss(
        log_probs.transpose(0, 1), labels, lengths, counts, blank=0, reduction="sum", zero_infinity=True
    )
    return total / counts.sum().clamp_min(1)
