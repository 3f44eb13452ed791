"""Rows for the tests of transforms, expectation over them, and patches; and draws that are known."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn

from walnut import data
from walnut.attacks.expectation import eot, photographed
from walnut.attacks.patch import Patch, local_patch
from walnut.core import constraints as c
from walnut.core import placement as p
from walnut.core import transforms as t
from walnut.core import transforms_colour as tc
from walnut.core.draws import Draws

EPS = 0.1


@lru_cache
def learned() -> tuple[nn.Module, Tensor, Tensor, Tensor, Tensor]:
    """Return a network that reads digits, the pictures it learned from, and 120 it has not seen."""
    found = data.load("digits")
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(192, 48), nn.ReLU(), nn.Linear(48, 10),
    )  # fmt: skip
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(120):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(found.train.x), found.train.y).backward()
        optimizer.step()
    test = found.test.first(120)
    return net.eval().requires_grad_(False), found.train.x, found.train.y, test.x, test.y


class Known(Draws):
    """Draws that are what they are told to be, call after call, for every row and entry."""

    def __init__(self, *values: float) -> None:
        super().__init__(lambda: torch.zeros(1, dtype=torch.int64))
        self.values = list(values)

    def uniform(self, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
        return torch.full((1, *shape), self.values.pop(0), dtype=dtype)


TRANSFORMS = {
    "zoom": t.zoom(0.7, 1.4),
    "crop": t.crop(0.5),
    "perspective": t.perspective(0.3),
    "rotate": t.rotate(40),
    "jitter": t.jitter(2.5),
    "resize-pad": t.resize_pad(0.5, 1.0),
    "brightness": tc.brightness(0.2),
    "contrast": tc.contrast(0.5),
    "gamma": tc.gamma(2.0),
    "tint": tc.tint(),
    "blur": tc.blur(1.2),
    "photographed": photographed(),
}

NEUTRAL = {
    "zoom": t.zoom(1.0, 1.0),
    "crop": t.crop(1.0),
    "perspective": t.perspective(0.0),
    "rotate": t.rotate(0.0),
    "jitter": t.jitter(0.0),
    "resize-pad": t.resize_pad(1.0, 1.0),
    "brightness": tc.brightness(0.0),
    "contrast": tc.contrast(0.0),
    "gamma": tc.gamma(1.0),
    "tint": tc.tint(0.0, 0.0),
    "blur": tc.blur(0.0),
    "clip": tc.clip(),
}

EXPECTATION = {
    "rotate": eot(EPS, t.rotate(30), steps=4, samples=2, draws=5),
    "l2": eot(0.5, t.jitter(1.0), norm=c.l2, steps=4, samples=2, draws=5),
    "l1": eot(2.0, t.zoom(), norm=c.l1, steps=4, samples=1, draws=5),
    "photographed": eot(EPS, photographed(1.0), steps=3, samples=2, draws=5, survives=0.9),
}

STILL = eot(EPS, t.compose(()), steps=4, samples=2, draws=3)
"""Under no change at all, an attack on the expectation keeps every promise of an ordinary one."""

SHAPES = {
    "square": p.square(),
    "circle": p.circle(),
    "sticker": p.sticker(torch.arange(40).reshape(5, 8) % 3 > 0),
    "soft": p.sticker(torch.linspace(0, 1, 24).reshape(6, 4)),
}

MASK = torch.zeros(8, 8, dtype=torch.bool)
MASK[2:5, 3:7] = True

LOCAL = {
    "local": local_patch(MASK, steps=8),
    "local-restarts": local_patch(MASK, steps=3, restarts=2),
}

READY = {
    "anywhere": Patch(torch.rand(1, 6, 6, generator=torch.Generator().manual_seed(1)), p.circle()(6)),
    "sticker": Patch(torch.rand(1, 5, 8, generator=torch.Generator().manual_seed(2)),
                     SHAPES["sticker"](8), p.Placement((0.5, 0.5), 0.0, p.at(0.4, 0.6))),
}  # fmt: skip
"""Patches as they come out of training, on grey pictures."""
