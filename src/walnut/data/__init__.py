"""Where examples come from."""

from .dataset import Dataset, Split
from .loading import load, names

__all__ = ["Dataset", "Split", "load", "names"]
