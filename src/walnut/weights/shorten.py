"""Biases and codebooks as 16-bit floats: their dtype stays, their values get shorter.

What is left of a pruned and shared network are a few hundred numbers that nothing has made smaller.
In float32 they take up to a tenth of the file; a float16's ten bits of mantissa are enough for them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


@torch.no_grad()
def shorten(model: nn.Module) -> list[str]:
    """Round the tensors of one axis to the nearest float16; return their names in the state.

    Biases, codebooks, and the scales, shifts and statistics of normalisation have one axis. The
    dtype stays float32 (a ``.walnut`` file writes a float that is a float16 in two bytes or less),
    so that nothing else changes; each number moves by at most 2^-11 of itself, or, below 2^-14, by
    at most 2^-25, which is 2^-11 of the tensor's largest or less. A tensor that float16 holds worse
    (a number beyond 65504, or all of them below 2^-14) is left alone.

    Errors of the network are for the caller to measure: call this before its accuracy is read.

    >>> layer = nn.Linear(1, 1)
    >>> _ = layer.bias.data.fill_(1 / 3)
    >>> shorten(layer), layer.bias.item()
    (['bias'], 0.333251953125)
    """
    found = []
    for name, w in model.state_dict().items():
        if w.dtype == torch.float32 and w.ndim == 1 and _fits(w):
            w.copy_(w.half().float())
            found.append(name)
    return found


def _fits(w: Tensor) -> bool:
    largest = float(w.abs().max()) if w.numel() else 0.0
    return largest == 0 or 2**-14 <= largest <= 65504
