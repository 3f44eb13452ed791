"""The weights lever: which weights exist, and what carries them."""

from __future__ import annotations

from .codebook import Codebook
from .controls import masks, random_mask, reinitialised
from .kmeans import Clusters, assign, kmeans, lloyd
from .mask import Fixed, Mask, NofM
from .pack import Sizes, baked_state, pack, unpack
from .prune import densities, density_schedule, lamp, magnitude, prune, prune_n_of_m
from .represent import bake, matrices, represent, representations, select, weights
from .representation import Part, Representation
from .schedule import Gradual, cubic, geometric, one_shot
from .scores import Movement, energy, random_scores, ranked, taylor
from .share import share

__all__ = [
    "Clusters",
    "Codebook",
    "Fixed",
    "Gradual",
    "Mask",
    "Movement",
    "NofM",
    "Part",
    "Representation",
    "Sizes",
    "assign",
    "bake",
    "baked_state",
    "cubic",
    "densities",
    "density_schedule",
    "energy",
    "geometric",
    "kmeans",
    "lamp",
    "lloyd",
    "magnitude",
    "masks",
    "matrices",
    "one_shot",
    "pack",
    "prune",
    "prune_n_of_m",
    "random_mask",
    "random_scores",
    "ranked",
    "reinitialised",
    "represent",
    "representations",
    "select",
    "share",
    "taylor",
    "unpack",
    "weights",
]
