"""What classics.py sets side by side, subject after subject."""

from __future__ import annotations

import classics_rows_fully as fully
import classics_rows_least as least
import classics_rows_whole as whole

ROWS = (*fully.ROWS, *least.ROWS, *whole.ROWS)
ORDERS = (*fully.ORDERS, *least.ORDERS, *whole.ORDERS)
