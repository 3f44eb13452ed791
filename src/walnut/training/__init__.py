"""Training: the one loop, and the parts it takes."""

from .batches import Batches
from .fit import History, fit

__all__ = ["Batches", "History", "fit"]
