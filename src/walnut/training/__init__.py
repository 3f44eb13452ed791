"""Training: the one loop, and the parts it takes."""

from .augment import crop, flip
from .batches import Batches
from .engine import fabric, single
from .fit import fit
from .optimizers import adam, adamw, sgd
from .run import History
from .schedules import constant, cosine, one_cycle, steps

__all__ = [
    "Batches",
    "History",
    "adam",
    "adamw",
    "constant",
    "cosine",
    "crop",
    "fabric",
    "fit",
    "flip",
    "one_cycle",
    "sgd",
    "single",
    "steps",
]
