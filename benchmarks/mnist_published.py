"""The smallest LeNets in print, how each one counts its bytes, and a plot of all of them.

``counts``: *bitstream*: bytes that a decoder reads; *format*: bits times counts in Han's format
(codebook and indices, on paper); *seeds*: indices of random draws that the decoder repeats, with
hashed weights; *payload*: weights without their positions. ``read``: whether the figure was read in
the source (or a text that quotes it), or remembered.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

PUBLISHED: tuple[dict[str, Any], ...] = (
    {"net": "lenet-300-100", "method": "Deep Compression (Han 2016)", "bytes": 27_000, "error": 1.58,
     "counts": "format", "read": True},
    {"net": "lenet-300-100", "method": "DeepCABAC (Wiedemann 2019)", "bytes": 19_400, "error": 1.9,
     "counts": "bitstream", "read": False},
    {"net": "lenet-300-100", "method": "Soft weight sharing (Ullrich 2017)", "bytes": 16_700,
     "error": 1.9, "counts": "format", "read": False},
    {"net": "lenet-300-100", "method": "Bayesian compression GNJ (Louizos 2017)", "bytes": 18_390,
     "error": 1.8, "counts": "format", "read": False},
    {"net": "lenet-300-100", "method": "Bayesian compression GHS (Louizos 2017)", "bytes": 18_080,
     "error": 1.8, "counts": "format", "read": False},
    {"net": "lenet-300-100", "method": "Sparse variational dropout", "bytes": 9_440, "error": 1.8,
     "counts": "format", "read": False},
    {"net": "lenet-300-100", "method": "EPR (Oktay 2020)", "bytes": 8_560, "error": 1.9,
     "counts": "bitstream", "read": True},
    {"net": "lenet-5", "method": "Deep Compression (Han 2016)", "bytes": 44_000, "error": 0.74,
     "counts": "format", "read": True},
    {"net": "lenet-5", "method": "DeepCABAC, sparse (Wiedemann 2019)", "bytes": 15_000, "error": 0.9,
     "counts": "bitstream", "read": True},
    {"net": "lenet-5", "method": "Sparse variational dropout, rounded", "bytes": 7_560, "error": 1.0,
     "counts": "payload", "read": True},
    {"net": "lenet-5", "method": "Bayesian compression GNJ, rounded", "bytes": 4_780, "error": 1.0,
     "counts": "payload", "read": True},
    {"net": "lenet-5", "method": "Weightless (Reagen 2018)", "bytes": 4_520, "error": 1.0,
     "counts": "bitstream", "read": True},
    {"net": "lenet-5", "method": "Bayesian compression GHS, rounded", "bytes": 4_120, "error": 1.0,
     "counts": "payload", "read": True},
    {"net": "lenet-5", "method": "MIRACLE, low error (Havasi 2019)", "bytes": 3_030, "error": 0.69,
     "counts": "seeds", "read": True},
    {"net": "lenet-5", "method": "EPR (Oktay 2020)", "bytes": 2_840, "error": 1.0,
     "counts": "bitstream", "read": True},
    {"net": "lenet-5", "method": "ADMM with indices (Ye 2019)", "bytes": 2_770, "error": 0.8,
     "counts": "format", "read": False},
    {"net": "lenet-5", "method": "Bayesian compression GHS, most", "bytes": 2_300, "error": 1.0,
     "counts": "format", "read": True},
    {"net": "lenet-5", "method": "MIRACLE, high compression (Havasi 2019)", "bytes": 1_520,
     "error": 0.96, "counts": "seeds", "read": True},
)  # fmt: skip

_MARKS = {"bitstream": "s", "format": "^", "payload": "v", "seeds": "D"}
_INK = {"bitstream": "#b2182b", "format": "#888888", "payload": "#bbbbbb", "seeds": "#7b3294"}


def plot(ours: list[dict[str, Any]], targets: list[dict[str, Any]], stem: Path) -> None:
    """Write bytes against error, a panel for each network, as .svg and .png.

    ours: rows with net, bytes, error (each a list over seeds) and point.
    """
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update({"svg.fonttype": "none", "font.size": 9})
    from matplotlib import pyplot
    from matplotlib.ticker import NullFormatter

    figure, panels = pyplot.subplots(1, 2, figsize=(11, 4.8), sharex=False)
    for panel, net in zip(panels, ("lenet-300-100", "lenet-5"), strict=True):
        for row in PUBLISHED:
            if row["net"] == net:
                panel.scatter(row["bytes"], row["error"], marker=_MARKS[row["counts"]],
                              color=_INK[row["counts"]], s=28, zorder=2)  # fmt: skip
                name = row["method"] + ("" if row["read"] else " *")
                panel.annotate(name, (row["bytes"], row["error"]), xytext=(4, 3), fontsize=6,
                               textcoords="offset points", color="#444444", rotation=35)  # fmt: skip
        for row in ours:
            if row["net"] == net:
                panel.scatter(row["bytes"], row["error"], color="#1a6faf", s=22, zorder=3)
        for row in targets:
            if row["net"] == net:
                panel.plot([0, row["bytes"], row["bytes"]], [row["error"], row["error"], 0],
                           color="#1a6faf", lw=0.7, ls=":", zorder=1)  # fmt: skip
        rows = [r for r in (*PUBLISHED, *({**o, "error": max(o["error"]), "bytes": min(o["bytes"])}
                for o in ours)) if r["net"] == net]  # fmt: skip
        panel.set(title=net, xscale="log", xlabel="bytes", ylabel="test error, %")
        panel.set_ylim(
            0.9 * min(r["error"] for r in rows) - 0.1, max(r["error"] for r in rows) * 1.2
        )
        panel.set_xlim(min(r["bytes"] for r in rows) / 1.5, max(r["bytes"] for r in rows) * 2.5)
        panel.xaxis.set_minor_formatter(NullFormatter())
        panel.grid(alpha=0.25, which="both")
    for counts, mark in _MARKS.items():
        panels[0].scatter([], [], marker=mark, color=_INK[counts], label=f"published: {counts}")
    panels[0].scatter([], [], color="#1a6faf", label="walnut: whole file, a point a seed")
    panels[0].plot([], [], color="#1a6faf", lw=0.7, ls=":", label="target")
    panels[0].legend(fontsize=7, loc="lower right")
    figure.text(0.01, 0.005, "* figure remembered, not read again in its source", fontsize=6)
    figure.tight_layout()
    for suffix in (".svg", ".png"):
        figure.savefig(
            stem.with_suffix(suffix), dpi=130, metadata={"Date": None} if suffix == ".svg" else None
        )
    pyplot.close(figure)
