"""Reference networks, and how a network comes off the disk."""

from .loading import check_data, load, resolve
from .registry import build, canonical, is_name, names
from .states import save

__all__ = ["build", "canonical", "check_data", "is_name", "load", "names", "resolve", "save"]
