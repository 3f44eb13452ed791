"""The weights lever: which weights exist, and what carries them."""

from __future__ import annotations

from .codebook import Codebook
from .curvature import squared_gradients
from .entropy_aware import entropy_constrained
from .kmeans import Clusters, assign, kmeans, lloyd
from .mask import Mask
from .norms import absorb, refreshed
from .pack import Sizes, baked_state, pack, unpack
from .prune import densities, density_schedule, lamp, magnitude, prune
from .represent import bake, matrices, represent, representations, select, weights
from .representation import Part, Representation
from .share import share, share_at_rate

__all__ = [
    "Clusters",
    "Codebook",
    "Mask",
    "Part",
    "Representation",
    "Sizes",
    "absorb",
    "assign",
    "bake",
    "baked_state",
    "densities",
    "density_schedule",
    "entropy_constrained",
    "kmeans",
    "lamp",
    "lloyd",
    "magnitude",
    "matrices",
    "pack",
    "prune",
    "refreshed",
    "represent",
    "representations",
    "select",
    "share",
    "share_at_rate",
    "squared_gradients",
    "unpack",
    "weights",
]
