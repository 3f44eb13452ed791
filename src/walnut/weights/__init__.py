"""The weights lever: which weights exist, and what carries them."""

from __future__ import annotations

from . import importance
from .activations import fixed, learned, quantise_activations
from .binary import Binary, StochasticBinary, mean_magnitude, unit
from .bits import Allocation, allocate, distortions, fit_bytes
from .calibrate import entropy, min_max, mse, percentile
from .codebook import Codebook
from .controls import masks, random_mask, reinitialised
from .couple import couple
from .curvature import squared_gradients
from .entropy_aware import entropy_constrained
from .grid import Grid, in_steps
from .kmeans import Clusters, assign, kmeans, lloyd
from .lowrank import Factorised, by_responses, by_weights, factorise
from .lowrank_forms import channel, cp, spatial, svd, tucker2
from .lowrank_parts import response_energy, weight_energy
from .lsq import LearnedStep
from .mask import Fixed, Mask, NofM
from .norms import absorb, refreshed
from .pack import Sizes, baked_state, pack, unpack
from .prune import densities, density_schedule, lamp, magnitude, prune, prune_n_of_m
from .quantise import quantise
from .quantised import Cast, Quantise, bfloat, half, per_channel, per_tensor
from .represent import bake, matrices, represent, representations, select, weights
from .representation import Part, Representation
from .schedule import Gradual, cubic, geometric, one_shot
from .scores import Movement, energy, random_scores, ranked, taylor
from .separable import separable, separate
from .share import share, share_at_rate
from .shorten import shorten
from .shrink import Shrunk, shrink
from .ternary import LearnedTernary, Ternary
from .tidy import arrange, silence, tidy
from .winograd import Accelerated, WinogradConv2d, winograd, winograd_conv2d
from .winograd_choose import fastest
from .winograd_transforms import cook_toom, f2, f4, tiles

__all__ = [
    "Accelerated",
    "Allocation",
    "Binary",
    "Cast",
    "Clusters",
    "Codebook",
    "Factorised",
    "Fixed",
    "Gradual",
    "Grid",
    "LearnedStep",
    "LearnedTernary",
    "Mask",
    "Movement",
    "NofM",
    "Part",
    "Quantise",
    "Representation",
    "Shrunk",
    "Sizes",
    "StochasticBinary",
    "Ternary",
    "WinogradConv2d",
    "absorb",
    "allocate",
    "arrange",
    "assign",
    "bake",
    "baked_state",
    "bfloat",
    "by_responses",
    "by_weights",
    "channel",
    "cook_toom",
    "couple",
    "cp",
    "cubic",
    "densities",
    "density_schedule",
    "distortions",
    "energy",
    "entropy",
    "entropy_constrained",
    "f2",
    "f4",
    "factorise",
    "fastest",
    "fit_bytes",
    "fixed",
    "geometric",
    "half",
    "importance",
    "in_steps",
    "kmeans",
    "lamp",
    "learned",
    "lloyd",
    "magnitude",
    "masks",
    "matrices",
    "mean_magnitude",
    "min_max",
    "mse",
    "one_shot",
    "pack",
    "per_channel",
    "per_tensor",
    "percentile",
    "prune",
    "prune_n_of_m",
    "quantise",
    "quantise_activations",
    "random_mask",
    "random_scores",
    "ranked",
    "refreshed",
    "reinitialised",
    "represent",
    "representations",
    "response_energy",
    "select",
    "separable",
    "separate",
    "share",
    "share_at_rate",
    "shorten",
    "shrink",
    "silence",
    "spatial",
    "squared_gradients",
    "svd",
    "taylor",
    "tidy",
    "tiles",
    "tucker2",
    "unit",
    "unpack",
    "weight_energy",
    "weights",
    "winograd",
    "winograd_conv2d",
]
