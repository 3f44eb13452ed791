"""Training: the one loop, and the parts it takes."""

from .augment import crop, flip
from .batches import Batches
from .engine import autocast, fabric, full, single
from .fit import fit
from .optimizers import adam, adamw, sgd
from .run import History
from .schedules import constant, cosine, one_cycle, steps

__all__ = [
    "Batches",
    "History",
    "adam",
    "adamw",
    "autocast",
    "constant",
    "cosine",
    "crop",
    "fabric",
    "fit",
    "flip",
    "full",
    "one_cycle",
    "sgd",
    "single",
    "steps",
]
