"""The page docs/deep-compression.md, made of the committed result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import record

PAGE = Path(__file__).parents[1] / "docs" / "deep-compression.md"

HEAD = """# Deep Compression, measured again

Table 1 to 3 of Han, Mao & Dally 2016 for the two networks that anyone can train, on {machine}.
Written by `python benchmarks/deep_compression.py --table` from
[the result](../benchmarks/results/deep_compression.json); the run is
`python benchmarks/deep_compression.py`.

Two sizes stand side by side. *Paper*: bits times counts, as the paper counts them: an index and a gap
for each non-zero and each filler, codebooks and biases in 32 bits, Huffman tables not counted
(beside it: with them). *File*: the length of a `.walnut` file that was loaded again and holds the
same weights to the bit, everything included. In the file the steps are: non-zeros in 32 bits with
gaps (prune), indices and gaps in fixed bits (share), both in Huffman code with its tables (code), and
the same weights with walnut's own coder (context). After sharing, biases and codebooks are rounded
to float16, for every file alike; the paper's accounts still count 32 bits for each. The Huffman file
is shorter than the paper's accounts although it holds everything: it leaves out pixels and units
without a weight, takes rows or columns first, and has gaps as wide as pays.

Two things are not the paper's. Weights are not pruned by magnitude alone but by w² √h, h being the
curvature of the loss in that weight, since a small weight of a bright pixel can matter more than a
large one of a dark pixel. And shared values are trained to give the pruned network's answers, not the
labels: by then all training images are right, and the labels have nothing more to say.

Of all seeds the mean, and in brackets the worst. "Gain" is the dense network's test error less
that of the compressed one, in points: above zero nothing was lost. Longer training lowers the dense
networks' error further (0.93 % for LeNet-300-100, ../benchmarks/results/mnist.json). Plans were chosen
on validation images; of some earlier ones the test errors had been read before (`notes` in
the result).
"""


def write() -> None:
    """Write the page."""
    whole = json.loads((record.RESULTS / "deep_compression.json").read_text(encoding="utf-8"))
    machine = whole["machine"]
    text = HEAD.format(
        machine=f"{machine['processor']} ({machine['threads']} thread, torch {machine['torch']})",
    )
    for net, found in whole["networks"].items():
        text += (
            f"\n## {net}\n\nSeeds: {len(found['runs'])}.\n\n"
            + _steps(found)
            + "\n"
            + _layers(found)
        )
    PAGE.write_text(text, encoding="utf-8")
    print(f"written to {PAGE}")


def _both(value: dict[str, float], digits: int = 2) -> str:
    return f"{value['mean']:.{digits}f} ({value['worst']:.{digits}f})"


def _percent(share: dict[str, float]) -> str:
    return f"{100 * share['mean']:.1f} % ({100 * share['worst']:.1f} %)"


def _steps(found: dict[str, Any]) -> str:
    summary = found["summary"]
    paper, file = summary["ratio_paper"], summary["ratio_file"]
    in_paper = {
        "dense": "1",
        "share": _both(paper["ratio_prune_share"], 1),
        "code": f"{_both(paper['ratio_coded'], 1)}; with tables "
        f"{_both(paper['ratio_coded_with_tables'], 1)}",
    }
    lines = ["| step | test error % | ratio, paper | ratio, file |", "|---|---|---|---|"]
    for step in file:
        error = _both(summary["error"][step])
        lines.append(f"| {step} | {error} | {in_paper.get(step, '')} | {_both(file[step], 1)} |")
    saved = summary["context_saves"]
    lines += [
        "",
        f"Gain: {_both(summary['gain'])} points. The context coder's file is "
        f"{_percent(saved['of_the_paper'])} shorter than the paper's third step in its own accounting, "
        f"and {_percent(saved['of_the_file'])} shorter than the Huffman file of the same weights.",
        "",
    ]
    return "\n".join(lines)


def _layers(found: dict[str, Any]) -> str:
    first = next(iter(found["runs"].values()))
    lines = [
        "By layer, first seed (bits are a stored entry's, before and after Huffman coding):",
        "",
        "| layer | weights | kept | weight bits | gap bits | ratio P+Q | P+Q+H | file bytes: "
        "share, code, context |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in {**first["layers"], "all": first["whole"]}.items():
        sizes = row.get("file_bytes", first["bytes"])
        lines.append(
            f"| {name} | {row['weights']:,} | {100 * row['kept']:.1f} % "
            f"| {row['bits_a_weight']} → {row['bits_a_weight_coded']} "
            f"| {row['bits_a_gap']} → {row['bits_a_gap_coded']} "
            f"| {row['ratio_prune_share']:.1f} | {row['ratio_coded']:.1f} "
            f"| {sizes['share']:,}, {sizes['code']:,}, {sizes['context']:,} |"
        )
    return "\n".join([*lines, ""])
