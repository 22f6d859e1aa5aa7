"""The model, built from FunASR's and Transformers' own modules under upstream's names, and its training losses."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from funasr.models.fun_asr_nano.ctc import CTC
from funasr.models.llm_asr.adaptor import Transformer
from funasr.models.sense_voice.model import SenseVoiceEncoderSmall
from torch import nn
from transformers import Qwen3Config, Qwen3ForCausalLM

from .data import IGNORED, Batch
from .features import ROW_WIDTH

WIDTH, LLM_WIDTH, ADAPTOR_HEADS = 128, 192, 8
ENCODER_CONF: dict[str, Any] = {
    "output_size": WIDTH, "attention_heads": 4, "linear_units": 256, "num_blocks": 6, "tp_blocks": 2,
    "dropout_rate": 0.0, "positional_dropout_rate": 0.0, "attention_dropout_rate": 0.0, "input_layer": "pe",
    "pos_enc_class": "SinusoidalPositionEncoder", "normalize_before": True, "kernel_size": 11, "sanm_shfit": 0,
    "selfattention_layer_type": "sanm", "feat_permute": True,
}  # fmt: skip
ADAPTOR_CONF: dict[str, Any] = {
    "downsample_rate": 1, "use_low_frame_rate": True, "ffn_dim": 256, "llm_dim": LLM_WIDTH,
    "encoder_dim": WIDTH, "n_layer": 2, "attention_heads": ADAPTOR_HEADS,
}  # fmt: skip
CTC_DECODER_CONF: dict[str, Any] = {
    "downsample_rate": 1, "ffn_dim": 256, "llm_dim": WIDTH, "encoder_dim": WIDTH, "n_layer": 1,
}  # fmt: skip
LLM_CONF: dict[str, Any] = {
    "hidden_size": LLM_WIDTH, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 64, "intermediate_size": 320, "rope_theta": 1e6, "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True, "max_position_embeddings": 40960, "attention_bias": False,
}  # fmt: skip
FRAMES_PER_ROW = 8  # encoder frames that one audio row of the prompt represents
SLOTS = 6  # CTC labels, including blanks, that training reads from one audio row
PERIODS = (16.0, 32.0, 64.0, 128.0, 256.0)  # in frames, of the position signal that training requires


class DemoNetwork(nn.Module):
    """Encoder, adaptor, LLM and CTC branch. The state dict has upstream's keys."""

    def __init__(self, llm_vocab: int, ctc_ranks: int, end_of_turn: int, padding: int) -> None:
        super().__init__()
        self.audio_encoder = SenseVoiceEncoderSmall(input_size=ROW_WIDTH, **ENCODER_CONF)
        self.audio_adaptor = Transformer(**ADAPTOR_CONF)
        config = Qwen3Config(
            vocab_size=llm_vocab, eos_token_id=end_of_turn, bos_token_id=padding, pad_token_id=padding,
            initializer_range=0.05, attn_implementation="sdpa", **LLM_CONF,
        )  # fmt: skip
        self.llm = Qwen3ForCausalLM(config)
        self.ctc_decoder = Transformer(**CTC_DECODER_CONF)
        self.ctc = CTC(odim=ctc_ranks + 1, encoder_output_size=WIDTH, blank_id=ctc_ranks)
        self.blank = ctc_ranks

    def encode(self, features: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Encode a copy of features (B, T, 560), (B,) -> (B, T, width). The encoder scales them in place."""
        return self.audio_encoder(features.clone(), lengths)[0]

    def ctc_log_probs(self, encoded: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return CTC log-probabilities: (B, T, width) -> (B, T, ranks + blank)."""
        return self.ctc.log_softmax(self.ctc_decoder(encoded, lengths)[0])

    def embed(self, token_ids: torch.Tensor, audio: torch.Tensor, adapted: torch.Tensor) -> torch.Tensor:
        """Return the LLM's input (B, L, llm width): token embeddings, with the adaptor's first rows at `audio`."""
        rows = torch.arange(adapted.shape[1])[None] < audio.sum(1, keepdim=True)  # (B, T)
        embedded = self.llm.get_input_embeddings()(token_ids)
        return embedded.masked_scatter(audio[:, :, None], adapted[rows].to(embedded.dtype))

    def ctc_loss(self, log_probs: torch.Tensor, lengths: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the negative log-likelihood per target token of the CTC targets; (B, frames, classes), (B,)."""
        total = F.ctc_loss(
            log_probs.transpose(0, 1), batch.ctc_ids, lengths, batch.ctc_lengths, blank=self.blank,
            reduction="sum", zero_infinity=True,
        )  # fmt: skip
        return total / batch.ctc_lengths.sum()

    def text_loss(self, batch: Batch, adapted: torch.Tensor, corruption: float) -> torch.Tensor:
        """Return the text's cross-entropy, with a share of the teacher-forced tokens replaced by random ones.

        The text before the audio is the same for the whole batch and is computed once.
        """
        token_ids = batch.token_ids
        if corruption > 0:
            given = F.pad(batch.labels[:, :-1] != IGNORED, (1, 0))  # the columns of the text
            wrong = given & (torch.rand(token_ids.shape) < corruption)
            token_ids = torch.where(wrong, torch.randint_like(token_ids, 1, self.llm.config.vocab_size), token_ids)
        prompt = self.llm.get_input_embeddings()(batch.prompt_ids)[None]  # (1, prompt, llm width)
        cache = self.llm.model(inputs_embeds=prompt, use_cache=True).past_key_values
        for layer in cache.layers:
            layer.keys = layer.keys.expand(len(token_ids), -1, -1, -1)
            layer.values = layer.values.expand(len(token_ids), -1, -1, -1)
        embedded = self.embed(token_ids, batch.audio, adapted)
        hidden = self.llm.model(inputs_embeds=embedded, past_key_values=cache, use_cache=True)[0]
        learnt = batch.labels != IGNORED
        return F.cross_entropy(self.llm.lm_head(hidden[learnt]), batch.labels[learnt])


class TrainingAid(nn.Module):
    """Auxiliary heads, used only in training: without them the LLM's loss teaches the low frame rate too slowly.

    The prompt contains only the adaptor's first rows, one in eight, so its attention must gather the whole clip in
    them. Rows: each audio row is expanded to SLOTS outputs of the CTC head, which together must spell the text.
    Places: each encoder frame must encode its position, because the features drown out the encoder's own position
    signal.
    """

    def __init__(self) -> None:
        super().__init__()
        self.spread = nn.Linear(LLM_WIDTH, SLOTS * WIDTH)
        self.locate = nn.Linear(WIDTH, 2 * len(PERIODS))

    def rows_loss(self, adapted: torch.Tensor, network: DemoNetwork, batch: Batch) -> torch.Tensor:
        """Return the CTC loss of the text that audio embeddings (B, T, llm width) spell through the fixed head."""
        counts = batch.audio.sum(1)  # (B,) audio embeddings
        slots = self.spread(adapted[:, : int(counts.max())]).unflatten(-1, (SLOTS, WIDTH)).flatten(1, 2)
        head = network.ctc.ctc_lo
        log_probs = F.linear(slots, head.weight.detach(), head.bias.detach()).float().log_softmax(-1)
        return network.ctc_loss(log_probs, SLOTS * counts, batch)

    def places_loss(self, encoded: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the mean squared error of sine and cosine of frame positions, (B, T, width); 0.5 is chance."""
        frames = torch.arange(encoded.shape[1])
        phases = 2 * math.pi * frames[:, None] / torch.tensor(PERIODS)  # (T, periods)
        places = torch.cat([phases.sin(), phases.cos()], dim=1)
        valid = frames[None] < batch.lengths[:, None]
        return F.mse_loss(self.locate(encoded)[valid], places.expand(len(encoded), -1, -1)[valid])


def new_network(llm_vocab: int, ctc_ranks: int, end_of_turn: int, padding: int) -> DemoNetwork:
    """Return a new network. The CTC head starts with a bias towards blanks, the most frequent label."""
    network = DemoNetwork(llm_vocab, ctc_ranks, end_of_turn, padding)
    with torch.no_grad():
        network.ctc.ctc_lo.bias[-1] += math.log(ctc_ranks)
    return network
