"""The input lever: understand a network. Every explainer is ``(model, x, y) -> scores`` like x."""

from .saliency import SaliencyMap, saliency

__all__ = ["SaliencyMap", "saliency"]
