"""The command line: one file per verb. Nothing here imports torch until a verb runs."""

from .entry import main

__all__ = ["main"]
