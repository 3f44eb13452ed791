"""Synthetic results for the report's tests: plausible figures, the same on every run."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

FORMS = ("dense", "pruned", "shared", "packed")
HOSTILE = "<script>alert(1)</script>\"'&$x$\u202e{{ 7*7 }}"


def share(correct: int, total: int = 1000) -> dict[str, Any]:
    """Return a proportion with its Wilson interval."""
    p, z = correct / total, 1.96
    centre = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total)) / (1 + z * z / total)
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    return {"value": p, "low": low, "high": high, "correct": correct, "total": total}


def common(kind: str) -> dict[str, Any]:
    """Return what every result has."""
    return {
        "kind": kind,
        "walnut": "0.1.0",
        "created": "2026-03-01T12:00:00+00:00",
        "command": f"walnut {kind} --model lenet-300-100 --data digits --seed 0",
        "seed": 0,
        "config": {"eps": [0.05, 0.1, 0.2], "examples": 1000},
        "config_sha256": "9f2c" * 16,
        "machine": {
            "processor": "x86_64",
            "cores": 2,
            "threads": 1,
            "python": "3.12.3",
            "torch": "2.13.0",
        },
        "seconds": 123.4,
        "notes": ["Latency was measured on a busy machine."],
    }


def attacked(noise: int, fgsm: int, pgd: int, clean: int) -> dict[str, Any]:
    """Return one row's attacks."""
    found = {}
    for name, left in (("noise", noise), ("fgsm", fgsm), ("pgd", pgd)):
        found[name] = {
            "eps": 0.1,
            "robust": share(left),
            "fooled_of_correct": share(clean - left, clean),
            "attack": f"{name}(eps=0.1)",
        }
    return found


def audit(shape: tuple[int, ...] = (1, 28, 28)) -> dict[str, Any]:
    """Return an audit of four forms."""
    clean = (985, 986, 984, 984)
    left = ((975, 148, 29), (974, 152, 34), (973, 161, 31), (973, 161, 31))
    rows = []
    for i, form in enumerate(FORMS):
        rows.append(
            {
                "form": form,
                "bytes": (1_066_440, 1_066_440, 102_310, 24_797)[i],
                "ratio": (1.0, 1.0, 10.42, 43.01)[i],
                "parameters": 266_610,
                "nonzeros": (266_610, 21_730, 21_730, 21_730)[i],
                "multiply_adds": 266_200,
                "latency": {
                    "median_ms": 0.0521 + 0.0004 * i,
                    "low_ms": 0.0509,
                    "high_ms": 0.0563,
                    "ratio_to_dense": 1.0,
                    "batch": 1,
                    "threads": 2,
                },
                "clean": share(clean[i]),
                "attacks": attacked(*left[i], clean[i]),
                "transfer_from_dense": share((29, 118, 131, 131)[i]),
            }
        )
    return {
        **common("audit"),
        "network": {"name": "lenet-300-100", "parameters": 266_610},
        "data": {
            "name": "digits",
            "examples": 1000,
            "classes": [str(i) for i in range(10)],
            "shape": list(shape),
        },
        "rows": rows,
        "transfer": [matrix(eps, FORMS) for eps in (0.05, 0.1, 0.2)],
        "curves": curves(FORMS),
        "histograms": histograms(),
        "layers": layers(),
        "pictures": picture_records(),
        "history": [
            {"stage": s, "epoch": e, "loss": 0.9 / (k + 1), "accuracy": 0.9 + 0.01 * e}
            for k, (s, e) in enumerate((s, e) for s in ("prune", "share") for e in range(1, 6))
        ],
    }


def matrix(eps: float, names: tuple[str, ...]) -> dict[str, Any]:
    """Return a transfer table: least left on the diagonal."""
    n = len(names)
    own = max(0.0, 0.55 - 5 * eps)
    table = [
        [own if i == j else min(0.97, own + 0.09 * (1 + abs(i - j))) for j in range(n)]
        for i in range(n)
    ]
    return {
        "eps": eps,
        "attack": f"pgd(eps={eps}, steps=40)",
        "names": list(names),
        "accuracy": table,
        "clean": [0.985] * n,
        "noise": [0.975 - eps / 5] * n,
    }


def curves(forms: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return robustness against eps for two attacks."""
    eps = [0, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3]
    found = []
    for attack, rate in (("pgd", 17.0), ("fgsm", 9.0), ("noise", 0.4)):
        for i, form in enumerate(forms):
            values = [share(round(985 / (1 + (e * (rate + i)) ** 2))) for e in eps]
            found.append(
                {
                    "form": form,
                    "attack": attack,
                    "eps": eps,
                    "accuracy": [v["value"] for v in values],
                    "low": [v["low"] for v in values],
                    "high": [v["high"] for v in values],
                }
            )
    return found


def histograms() -> list[dict[str, Any]]:
    """Return weight histograms of three layers in four forms, the last two the same."""
    rng = np.random.default_rng(0)
    found = []
    for layer, size, scale in (
        ("fc1.weight", 235_200, 0.05),
        ("fc2.weight", 30_000, 0.08),
        ("fc3.weight", 1_000, 0.15),
    ):
        weights = rng.normal(0, scale, size)
        edges = np.linspace(-5 * scale, 5 * scale, 61)
        kept = weights[np.abs(weights) > 1.7 * scale]
        levels = np.linspace(-3.5 * scale, 3.5 * scale, 16)
        nearest = levels[np.abs(kept[:, None] - levels).argmin(1)]
        for form, values in zip(FORMS, (weights, kept, nearest, nearest), strict=True):
            found.append(
                {
                    "form": form,
                    "layer": layer,
                    "edges": edges.tolist(),
                    "counts": np.histogram(values, edges)[0].tolist(),
                    "zeros": int(size - len(values)),
                }
            )
    return found


def layers() -> list[dict[str, Any]]:
    """Return the tensors of a packed file."""
    shapes = {"fc1.weight": (300, 784), "fc2.weight": (100, 300), "fc3.weight": (10, 100)}
    found = []
    for i, (name, shape) in enumerate(shapes.items()):
        weights = shape[0] * shape[1]
        kept, stored = int(0.08 * weights) + 200 * i, (18_900, 3_420, 610)[i]
        found.append(
            {
                "name": name,
                "shape": list(shape),
                "weights": weights,
                "nonzeros": kept,
                "bits": 8 * stored / weights,
                "bytes": stored,
                "ratio": 4 * weights / stored,
                "coder": "range",
            }
        )
    found.append(
        {
            "name": "fc1.bias",
            "shape": [300],
            "weights": 300,
            "nonzeros": 300,
            "bits": 32,
            "bytes": 1200,
            "ratio": 1.0,
            "coder": "raw",
        }
    )
    return found


def picture_records(examples: int = 3) -> list[dict[str, Any]]:
    """Return what was tried on some examples: noise and PGD, four forms."""
    found = []
    for attack in ("pgd", "noise"):
        for index in range(examples):
            for form in FORMS:
                fooled = attack == "pgd" and not (index == 1 and form == "shared")
                found.append(
                    {
                        "form": form,
                        "attack": attack,
                        "eps": 0.1,
                        "label": str(index),
                        "clean_prediction": str(index),
                        "prediction": str((index + 5) % 10) if fooled else str(index),
                        "success": fooled,
                        "magnification": 10.0,
                        "index": 17 + index,
                        "array": len(found),
                    }
                )
    return found


def arrays(rows: int = 24, shape: tuple[int, ...] = (1, 28, 28)) -> dict[str, np.ndarray]:
    """Return blobs, their perturbations and the sums, each (rows, *shape) float32."""
    rng = np.random.default_rng(1)
    if len(shape) == 3:
        y, x = np.mgrid[0 : shape[1], 0 : shape[2]] / shape[1] - 0.5
        ring = np.exp(-(((np.hypot(x * 1.3, y) - 0.26) / 0.07) ** 2))
        original = np.broadcast_to(ring, (rows, *shape))
    else:
        original = rng.random((rows, *shape))
    delta = 0.1 * np.sign(rng.normal(size=(rows, *shape)))
    adversarial = np.clip(original + delta, 0, 1)
    made = {
        "original": original,
        "perturbation": adversarial - original,
        "adversarial": adversarial,
    }
    return {key: value.astype(np.float32) for key, value in made.items()}


def transfer() -> dict[str, Any]:
    """Return a transfer of four networks at three radii."""
    names = ("lenet-300-100 seed 0", "lenet-300-100 seed 1", "small-cnn seed 0", "small-cnn seed 1")
    return {
        **common("transfer"),
        "data": {"name": "mnist", "examples": 1000},
        "rows": [
            {"form": n, "clean": share(980 + i), "parameters": 266_610} for i, n in enumerate(names)
        ],
        "transfer": [matrix(eps, names) for eps in (0.05, 0.1, 0.2)],
    }


def attack() -> dict[str, Any]:
    """Return an attack on one network."""
    full = audit()
    return {
        **common("attack"),
        "data": full["data"],
        "rows": [{"form": "lenet-5", "clean": share(985), "attacks": full["rows"][0]["attacks"]}],
        "curves": [curve for curve in curves(("lenet-5",)) if curve["attack"] == "pgd"],
        "pictures": [{**r, "form": "lenet-5"} for r in picture_records() if r["form"] == "dense"],
    }


def train() -> dict[str, Any]:
    """Return a training of twelve epochs."""
    history = [
        {
            "epoch": e,
            "train_loss": 1.4 / e,
            "validation_accuracy": 0.985 - 0.2 / (e * e),
            "lr": 0.1 * 0.8**e,
            "seconds": 1.5,
        }
        for e in range(1, 13)
    ]
    row = {"form": "lenet-5", "clean": share(985), "parameters": 431_080}
    return {**common("train"), "history": history, "rows": [row]}
