"""Numbers as people read them: percentages, bytes, ratios, radii.

A missing number (``None`` or NaN) is an en dash everywhere.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, TypeGuard

from .parts import Number

MISSING = "–"
SPACE = "\u00a0"  # no-break, so that a number keeps its unit
ABBREVIATIONS = {
    "fgsm", "bim", "pgd", "mi_fgsm", "di_fgsm", "ti_fgsm", "ni_fgsm", "si_fgsm", "vmi_fgsm", "apgd",
    "apgd_t", "apgd_ce", "apgd_dlr", "fab", "fab_t", "ddn", "fmn", "jsma", "nes", "spsa", "eot",
}  # fmt: skip

NORMS = {"linf": "L∞", "l2": "L2", "l1": "L1", "l0": "L0"}


def known(value: object) -> TypeGuard[Number]:
    """Say whether ``value`` is a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)


def percent(value: Number | None) -> str:
    """Return a proportion as a percentage with one decimal.

    Never rounds to all or nothing:

    >>> percent(0.984), percent(1), percent(0.9999), percent(None)
    ('98.4\\xa0%', '100\\xa0%', '>\\u202f99.9\\xa0%', '–')
    """
    if value is None or not known(value):
        return MISSING
    if value in (0, 1):
        return f"{100 * value:.0f}{SPACE}%"
    if 0 < value < 0.0005:
        return f"<\u202f0.1{SPACE}%"
    if 0.9995 <= value < 1:
        return f">\u202f99.9{SPACE}%"
    return f"{100 * value:.1f}{SPACE}%"


def interval(record: dict[str, Any] | None) -> str:
    """Return a proportion's 95 % interval in per cent: ``97.5–99.2``; empty when not recorded."""
    low, high = (record or {}).get("low"), (record or {}).get("high")
    if low is None or high is None or not (known(low) and known(high)):
        return ""
    return f"{100 * low:.1f}–{100 * high:.1f}"


def points(difference: Number) -> str:
    """Return a difference of proportions in percentage points, without a sign."""
    size = abs(100 * difference)
    return f"{size:.1f} point" + ("" if f"{size:.1f}" == "1.0" else "s")


def count(value: Number | None) -> str:
    """Return a whole number with its thousands apart.

    >>> count(1066440)
    '1,066,440'
    """
    return MISSING if value is None or not known(value) else f"{round(value):,}"


def plural(value: int, noun: str) -> str:
    """Return ``1 example``, ``1,000 examples``."""
    return f"{value:,} {noun}" + ("" if value == 1 else "s")


def size(value: Number | None) -> str:
    """Return bytes in decimal units: ``24.8 kB`` is 24,800 bytes."""
    if value is None or not known(value):
        return MISSING
    amount = float(value)
    for unit in ("bytes", "kB", "MB"):
        if amount < 999.5:
            return f"{amount:.3g}{SPACE}{unit}"
        amount /= 1000
    return f"{amount:,.4g}{SPACE}GB"


def times(value: Number | None) -> str:
    """Return a ratio: ``43×``, ``6.5×``."""
    if value is None or not known(value):
        return MISSING
    return f"{value:,.0f}×" if value >= 19.95 else f"{value:.1f}×"


def milliseconds(value: Number | None) -> str:
    """Return a latency to three figures."""
    return MISSING if value is None or not known(value) else f"{float(value):.3g}{SPACE}ms"


def duration(seconds: Number | None) -> str:
    """Return a run's length: ``12.3 s``, ``2 min 5 s``, ``1 h 20 min``."""
    if seconds is None or not known(seconds):
        return MISSING
    if seconds < 60:
        return f"{seconds:.1f}{SPACE}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}{SPACE}min {rest}{SPACE}s"
    return f"{minutes // 60}{SPACE}h {minutes % 60}{SPACE}min"


def radius(eps: Number | None) -> str:
    """Return an attack's radius: a short decimal, or 255ths where it is a whole number of them.

    >>> radius(0.1), radius(8 / 255), radius(0)
    ('0.1', '8/255', '0')
    """
    if eps is None or not known(eps):
        return MISSING
    levels = round(255 * eps)
    short = f"{float(eps):.4g}"
    if levels > 0 and abs(255 * eps - levels) < 1e-6 and abs(float(short) - eps) > 1e-12:
        return f"{levels}/255"
    return short


def attack_name(name: str) -> str:
    """Return an attack's short name as the field writes it, out of its key or its repr.

    >>> attack_name("pgd(eps=0.1, steps=40)"), attack_name("mi_fgsm"), attack_name("noise")
    ('PGD', 'MI-FGSM', 'noise')
    """
    match = re.match(r"[\w-]+", name)
    word = match.group() if match else name
    plain = word.lower().replace("-", "_")
    return word.upper().replace("_", "-") if plain in ABBREVIATIONS else word


def norm_name(norm: object) -> str:
    """Return a norm as people write it.

    >>> norm_name("linf"), norm_name("mine")
    ('L∞', 'mine')
    """
    return NORMS.get(str(norm), str(norm))


def stage_name(name: str) -> str:
    """Return a stage's name: an attack's as the field writes it, any other as it is.

    >>> stage_name("apgd-t"), stage_name("single step")
    ('APGD-T', 'single step')
    """
    return attack_name(name) if re.fullmatch(r"[\w-]+", name) else name


def told(text: str) -> str:
    """Return words as a sentence.

    >>> told("the gradient is masked"), told("Is it?")
    ('The gradient is masked.', 'Is it?')
    """
    text = text[:1].upper() + text[1:]
    return text if not text or text[-1] in ".!?…" else f"{text}."


def listed(words: Sequence[str]) -> str:
    """Return words in a row: ``a``, ``a and b``, ``a, b and c``."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else list(words))


def shortened(name: str, length: int = 26) -> str:
    """Return a name cut in the middle, where two names differ least."""
    if len(name) <= length:
        return name
    head = (length - 1) // 2
    return f"{name[:head]}…{name[len(name) - (length - 1 - head) :]}"


def dig(record: object, *keys: str) -> Any:
    """Return ``record[k1][k2]...``, or ``None`` where a key is missing."""
    for key in keys:
        if not isinstance(record, dict) or key not in record:
            return None
        record = record[key]
    return record
