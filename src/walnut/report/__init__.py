"""The page: one self-contained HTML file that shows a result, offline, to anybody.

>>> from walnut.report import render
"""

from .page import render

__all__ = ["render"]
