"""Initialise the adaptor so that it can read: each audio row attends to its own frames.

Only the adaptor's first rows, one in eight, reach the prompt. For row i to represent frames 8i to 8i + 7, the
query of row i must match the keys of those frames. Gradient descent takes very long to discover this. But once the
encoder encodes each frame's position (`TrainingAid.places_loss`), the match can be computed: with phases a = 2 pi
8i / P of the query and b = 2 pi p / P of the key, the score cos(a + offset - b) is a scalar product of (cos, sin)
pairs. Both pairs are linear functions of the encoder's output and are fitted by least squares.
"""

from __future__ import annotations

import math

import torch

from .data import Batch
from .features import audio_token_count
from .network import ADAPTOR_HEADS, FRAMES_PER_ROW, LLM_WIDTH, PERIODS, WIDTH, DemoNetwork

SHARPNESS = (3.0, 3.0, 2.0, 2.0, 2.0)  # of the cosine of each period, in units of the attention score
RIDGE = 1e-3


@torch.no_grad()
def aim_adaptor(network: DemoNetwork, batches: list[Batch]) -> dict[str, float]:
    """Set the adaptor's input layers and first attention; return the share of variance that the phases explain."""
    _pass_through(network)
    key_rows, key_places, query_rows, query_places = [], [], [], []
    block = network.audio_adaptor.blocks[0]
    for batch in batches:
        encoded = network.encode(batch.features, batch.lengths)
        adaptor = network.audio_adaptor
        rows = block.norm1(adaptor.linear2(adaptor.relu(adaptor.linear1(encoded))))
        for row, length in zip(rows, batch.lengths.tolist(), strict=True):
            places = torch.arange(length)
            key_rows.append(row[:length])
            key_places.append(places)
            count = audio_token_count(length)
            query_rows.append(row[:count])
            query_places.append(FRAMES_PER_ROW * places[:count])
    to_keys, key_share = _fit(torch.cat(key_rows), torch.cat(key_places))
    to_queries, query_share = _fit(torch.cat(query_rows), torch.cat(query_places))
    attention, head_dim = block.self_attn, LLM_WIDTH // ADAPTOR_HEADS
    pairs = 2 * len(PERIODS)
    for head in range(ADAPTOR_HEADS):
        turned = _turn(to_queries, head) * _gains(head_dim)
        for linear, columns in ((attention.linear_q, turned), (attention.linear_k, to_keys)):
            part = slice(head * head_dim, head * head_dim + pairs)
            linear.weight[part], linear.bias[part] = columns[:-1].T.float(), columns[-1].float()
            rest = slice(head * head_dim + pairs, (head + 1) * head_dim)
            linear.weight[rest] *= 0.3
            linear.bias[rest] = 0
    return {"aim_keys": key_share, "aim_queries": query_share}


def _pass_through(network: DemoNetwork) -> None:
    """Make linear1, relu, linear2 pass the encoder's output through unchanged: relu(x) - relu(-x) = x."""
    adaptor = network.audio_adaptor
    eye = torch.eye(WIDTH)
    adaptor.linear1.weight.copy_(torch.cat([eye, -eye]) + 0.02 * torch.randn(2 * WIDTH, WIDTH))
    spread = torch.cat([eye, torch.randn(LLM_WIDTH - WIDTH, WIDTH) * WIDTH**-0.5])
    adaptor.linear2.weight.copy_(torch.cat([spread, -spread], dim=1))
    adaptor.linear1.bias.zero_()
    adaptor.linear2.bias.zero_()


def _fit(rows: torch.Tensor, places: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Fit (rows, width) to the phases at (rows,) by least squares: (width + 1, 2 periods), share explained."""
    phases = 2 * math.pi * places[:, None] / torch.tensor(PERIODS)
    wanted = torch.cat([phases.cos(), phases.sin()], dim=1).double()
    inputs = torch.cat([rows, torch.ones(len(rows), 1)], dim=1).double()
    gram = inputs.T @ inputs + RIDGE * len(rows) * torch.eye(inputs.shape[1])
    solution = torch.linalg.solve(gram, inputs.T @ wanted)
    return solution, 1 - ((inputs @ solution - wanted).var(0) / wanted.var(0).clamp_min(1e-6)).mean().item()


def _turn(columns: torch.Tensor, offset: int) -> torch.Tensor:
    """Advance the phases that `columns` compute by `offset` frames."""
    angles = 2 * math.pi * offset / torch.tensor(PERIODS).double()
    cos, sin = columns.chunk(2, dim=1)
    return torch.cat([cos * angles.cos() - sin * angles.sin(), sin * angles.cos() + cos * angles.sin()], dim=1)


def _gains(head_dim: int) -> torch.Tensor:
    return torch.tensor(SHARPNESS * 2).double() * math.sqrt(head_dim)
