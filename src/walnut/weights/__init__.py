"""The weights lever: which weights exist, and what carries them."""

from __future__ import annotations

from . import importance
from .codebook import Codebook
from .couple import couple
from .kmeans import Clusters, assign, kmeans, lloyd
from .mask import Mask
from .pack import Sizes, baked_state, pack, unpack
from .prune import densities, density_schedule, lamp, magnitude, prune
from .represent import bake, matrices, represent, representations, select, weights
from .representation import Part, Representation
from .share import share
from .shrink import Shrunk, budget, shrink
from .tidy import arrange, silence, tidy

__all__ = [
    "Clusters",
    "Codebook",
    "Mask",
    "Part",
    "Representation",
    "Shrunk",
    "Sizes",
    "arrange",
    "assign",
    "bake",
    "baked_state",
    "budget",
    "couple",
    "densities",
    "density_schedule",
    "importance",
    "kmeans",
    "lamp",
    "lloyd",
    "magnitude",
    "matrices",
    "pack",
    "prune",
    "represent",
    "representations",
    "select",
    "share",
    "shrink",
    "silence",
    "tidy",
    "unpack",
    "weights",
]
