"""What walnut says when an input cannot be used: in the user's words, with the remedy."""

from __future__ import annotations


class WalnutError(ValueError):
    """Something the user gave cannot be used; the message says what, and what to do about it."""


class WalnutWarning(UserWarning):
    """Something is odd enough to say before the result is believed."""
