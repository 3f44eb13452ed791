"""``python -m walnut.cli`` is the command ``walnut``."""

from __future__ import annotations

import sys

from .entry import main

if __name__ == "__main__":
    sys.exit(main())
