"""The weights lever: which weights exist, and what carries them."""

from __future__ import annotations

from .codebook import Codebook
from .grid import Grid, in_steps
from .kmeans import Clusters, assign, kmeans, lloyd
from .mask import Mask
from .pack import Sizes, baked_state, pack, unpack
from .prune import densities, density_schedule, lamp, magnitude, prune
from .represent import bake, matrices, represent, representations, select, weights
from .representation import Part, Representation
from .share import share

__all__ = [
    "Clusters",
    "Codebook",
    "Grid",
    "Mask",
    "Part",
    "Representation",
    "Sizes",
    "assign",
    "bake",
    "baked_state",
    "densities",
    "density_schedule",
    "in_steps",
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
    "unpack",
    "weights",
]
