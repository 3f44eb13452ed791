"""The weights lever: which weights exist, and what carries them."""

from __future__ import annotations

from .codebook import Codebook
from .kmeans import Clusters, assign, kmeans, lloyd
from .lowrank import Factorised, by_responses, by_weights, factorise
from .lowrank_budget import budget
from .lowrank_forms import channel, cp, spatial, svd, tucker2
from .lowrank_parts import response_energy, weight_energy
from .mask import Mask
from .pack import Sizes, baked_state, pack, unpack
from .prune import densities, density_schedule, lamp, magnitude, prune
from .represent import bake, matrices, represent, representations, select, weights
from .representation import Part, Representation
from .separable import separable, separate
from .share import share
from .winograd import Accelerated, WinogradConv2d, winograd, winograd_conv2d
from .winograd_choose import fastest
from .winograd_transforms import cook_toom, f2, f4, tiles

__all__ = [
    "Accelerated",
    "Clusters",
    "Codebook",
    "Factorised",
    "Mask",
    "Part",
    "Representation",
    "Sizes",
    "WinogradConv2d",
    "assign",
    "bake",
    "baked_state",
    "budget",
    "by_responses",
    "by_weights",
    "channel",
    "cook_toom",
    "cp",
    "densities",
    "density_schedule",
    "f2",
    "f4",
    "factorise",
    "fastest",
    "kmeans",
    "lamp",
    "lloyd",
    "magnitude",
    "matrices",
    "pack",
    "prune",
    "represent",
    "representations",
    "response_energy",
    "select",
    "separable",
    "separate",
    "share",
    "spatial",
    "svd",
    "tiles",
    "tucker2",
    "unpack",
    "weight_energy",
    "weights",
    "winograd",
    "winograd_conv2d",
]
