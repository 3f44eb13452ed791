"""What compression does to robustness: five networks, each compressed in many ways, and attacked.

    python benchmarks/compression_robustness.py            (about 15 minutes on one idle core)
    python benchmarks/compression_robustness.py --page     (docs/compression-robustness.md from the result)
    python benchmarks/compression_robustness.py mnist      (only the networks whose name has "mnist")

Needs WALNUT_DATA. Every form is a file: it is written, weighed by the file system, opened again by
``walnut.load`` or by ONNX Runtime, and what was opened is measured. The int8 kernels of ONNX Runtime
are themselves attacked, without their gradients and with a differentiable twin's examples; so the
figure is of the deployed network and not of its simulation. Each cell is kept in
runs/bench-compression-robustness, and an interrupted run goes on from there.

- clean: on the first 1,000 test examples; robust: the cascade (L-infinity) on the first 200 (ResNet-20: 100).
- transfer: accuracy on adversarial examples made against the dense network (PGD, 20 steps, not
  stopped at success), the same examples.
- asked only: what Square leaves with 500 queries an example and no gradient, of a form without one.
- latency: one example, one thread, alternating with the dense network in PyTorch.
"""

from __future__ import annotations

import copy
import functools
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import compression_robustness_page
import record
from walnut import data, nets
from walnut.attacks import pgd, square
from walnut.core.constraints import linf
from walnut.evaluate import accuracy, latency, robustness
from walnut.evaluate.accuracy import Share
from walnut.evaluate.adapt import adapt
from walnut.evaluate.onnx_model import onnx_model
from walnut.recipes.compress import compress
from walnut.recipes.recipe import Recipe
from walnut.recipes.record import Cells
from walnut.training import Batches, adam, fit, one_cycle
from walnut.weights import bake, by_responses, factorise, pack, prune, share, spatial, svd
from walnut.weights.importance import taylor
from walnut.weights.lowrank_budget import budget as ranks_for
from walnut.weights.shrink import budget as to_half
from walnut.weights.shrink import shrink

SEED, CLEAN, QUERIES = 0, 1000, 500
TRAINED = 10000  # training examples where a way trains: a short repair, not a new training
OUT = Path("runs/bench-compression-robustness")
KEPT = Cells(OUT / "cells", {"seed": SEED, "clean": CLEAN, "trained": TRAINED})
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
CIFAR = {"mean": (0.4914, 0.4824, 0.4467), "std": (0.2471, 0.2435, 0.2616)}


@dataclass(frozen=True)
class Case:
    """A network and the radii it is judged at."""

    file: str
    net: str
    dataset: str
    eps: tuple[float, ...]
    arguments: tuple[tuple[str, Any], ...] = ()
    attacked: int = 200


CASES = {
    "MNIST, plain": Case(
        "mnist_conv_small_nat", "small-cnn", "mnist", (0.1,),
        (("mean", (0.1307,)), ("std", (0.3081,))),
    ),
    "MNIST, adversarially trained": Case("mnist_cnn_a_adv", "small-cnn", "mnist", (0.3,)),
    "MNIST, provable": Case("mnist_cnn_provable_eps0.1", "small-cnn", "mnist", (0.1,)),
    "CIFAR-10, adversarially trained": Case(
        "cifar_cnn_a_adv", "small-cnn", "cifar10", (2 / 255,), tuple(CIFAR.items())
    ),
    "CIFAR-10, ResNet-20": Case(
        "resnet20_cifar10", "resnet-20", "cifar10", (1 / 255,), tuple(IMAGENET.items()), 100
    ),
}  # fmt: skip


@dataclass
class Form:
    """A compressed network: its file, what the file holds once opened, and a differentiable twin."""

    path: Path
    model: Any
    twin: Any = None


@functools.cache
def subject(case: Case) -> tuple[nn.Module, Any]:
    """Return a pretrained network and its data."""
    dataset = data.load(case.dataset)
    path = Path(os.environ["WALNUT_DATA"]) / "models" / f"{case.file}.safetensors"
    model = nets.resolve(case.net, path, dataset=dataset, **dict(case.arguments))
    return model.eval(), dataset


def saved(model: nn.Module, folder: Path, name: str) -> Form:
    """Write a network as safetensors."""
    path = folder / f"{name}.safetensors"
    nets.save(model, path)
    return Form(path, nets.load(path).eval())


def packed(model: nn.Module, folder: Path, name: str) -> Form:
    """Write a network as .walnut, and open it again."""
    path = folder / f"{name}.walnut"
    pack(model, path)
    return Form(path, nets.load(path).eval())


def pruned(density: float) -> Callable[[nn.Module, Any, Path], Form]:
    """Magnitude pruning (LAMP shares over layers), without retraining."""
    return lambda dense, _, folder: packed(
        bake(prune(copy.deepcopy(dense), density)), folder, f"pruned-{density:g}"
    )


def shared(bits: int) -> Callable[[nn.Module, Any, Path], Form]:
    """A codebook a layer, optimal k-means, without fine-tuning."""
    return lambda dense, _, folder: packed(
        bake(share(copy.deepcopy(dense), bits)), folder, f"shared-{bits}"
    )


def half(dense: nn.Module, _: Any, folder: Path) -> Form:
    """Weights stored as float16; the arithmetic is in float32."""
    made = saved(copy.deepcopy(dense).half(), folder, "fp16")
    return Form(made.path, made.model.float())


def structured(dense: nn.Module, dataset: Any, folder: Path) -> Form:
    """Units removed by Taylor to half of the multiply-adds, then one epoch towards the dense network."""
    model, x, y = copy.deepcopy(dense), dataset.train.x[:2048], dataset.train.y[:2048]
    batches = tuple(zip(x.split(128), y.split(128), strict=True))
    shrink(model, x[:2], to_half(multiply_adds=0.5), importance=taylor(batches), least=4)
    return packed(followed(model, dense, dataset), folder, "structured")


def lowrank(dense: nn.Module, dataset: Any, folder: Path) -> Form:
    """Convolutions as two, k×1 then 1×k, fitted to responses; half of all multiply-adds; no training."""
    model = copy.deepcopy(dense)
    convs = [n for n, m in model.named_modules() if type(m) is nn.Conv2d]
    linears = [n for n, m in model.named_modules() if type(m) is nn.Linear]
    forms = dict.fromkeys(convs, spatial()) | dict.fromkeys(linears[:-1], svd())
    factorise(model, forms, fit=by_responses(dataset.train.x[:500]),
              ranks=ranks_for(multiply_adds=0.5))  # fmt: skip
    return packed(model, folder, "lowrank")


def followed(model: nn.Module, dense: nn.Module, dataset: Any) -> nn.Module:
    """Train a network, in place, towards the dense one's answers on clean images (Hinton et al. 2015)."""

    def distance(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            told = F.log_softmax(dense(x), 1)
        return F.kl_div(F.log_softmax(model(x), 1), told, log_target=True, reduction="none").sum(1)

    batches = Batches(dataset.train.x[:TRAINED], dataset.train.y[:TRAINED], 128, SEED)
    fit(model, distance, batches, epochs=1, optimizer=adam(1e-3), schedule=one_cycle(), seed=SEED)
    return model.eval()


def exported(model: nn.Module, shape: tuple[int, ...], path: Path) -> None:
    """Write a network as ONNX with any batch size."""
    import onnx

    path.parent.mkdir(parents=True, exist_ok=True)
    x = torch.zeros(2, *shape)
    dynamic = {"x": {0: torch.export.Dim("batch", min=1, max=4096)}}
    torch.onnx.export(
        model, (x,), path, input_names=["x"], output_names=["y"], dynamo=True,
        dynamic_shapes=(dynamic["x"],), verbose=False, external_data=False,
    )  # fmt: skip
    graph = onnx.load(path)
    del graph.graph.value_info[:]  # shapes from before its weights were transposed
    onnx.save(graph, path)


def int8(dense: nn.Module, dataset: Any, folder: Path) -> Form:
    """Weights and activations in int8 (QDQ, uint8 x int8 per channel), ONNX Runtime's kernels."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rows = iter(dataset.train.x[:256].split(64))

        def get_next(self) -> Any:
            rows = next(self.rows, None)
            return None if rows is None else {"x": rows.numpy()}

    source, clean, path = (folder / f"{n}.onnx" for n in ("float", "prepared", "int8"))
    exported(dense, dataset.shape, source)
    quant_pre_process(str(source), str(clean), skip_symbolic_shape=True)
    quantize_static(
        str(clean), str(path), Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip
    return Form(path, onnx_model(path), dense)


def deep(dense: nn.Module, dataset: Any, folder: Path) -> Form:
    """Deep Compression: density 0.2 with one epoch of retraining, 4 bits, half an epoch, packed."""
    recipe = Recipe(density=0.2, rounds=1, epochs=1, bits=4, finetune_epochs=1, lr=0.01,
                    least_steps=1, mirror=dataset.shape[0] == 3)  # fmt: skip
    small = replace(
        dataset, train=dataset.train.first(TRAINED), validation=dataset.validation.first(2000)
    )
    small = replace(small, test=dataset.test.first(CLEAN))
    found = compress(dense, small, recipe=recipe, seed=SEED, out=folder / "deep")
    return Form(found.path, nets.load(found.path).eval())


WAYS: dict[str, Callable[[nn.Module, Any, Path], Form]] = {
    "dense": lambda dense, _, folder: saved(dense, folder, "dense"),
    "pruned to 50 %": pruned(0.5),
    "pruned to 20 %": pruned(0.2),
    "pruned to 10 %": pruned(0.1),
    "4-bit codebook": shared(4),
    "2-bit codebook": shared(2),
    "fp16 weights": half,
    "int8 (ONNX Runtime, deployed)": int8,
    "structured, half the work, distilled": structured,
    "low rank, half the work": lowrank,
    "Deep Compression, retrained": deep,
}


@functools.cache
def carried(case: Case, eps: float) -> Tensor:
    """Return adversarial examples of the dense network."""
    dense, dataset = subject(case)
    x, y = dataset.test.x[: case.attacked], dataset.test.y[: case.attacked]
    return pgd(eps, steps=20, early_stop=False, seed=SEED)(dense, x, y).x


def measure(name: str, way: str) -> dict[str, Any]:
    """Make one form, and measure what its file holds."""
    case = CASES[name]
    dense, dataset = subject(case)
    form = WAYS[way](dense, dataset, OUT / case.file)
    x, y = dataset.test.x, dataset.test.y
    times = latency({"dense": dense, "form": form.model}, x[:1])
    found: dict[str, Any] = {
        "file": form.path.name,
        "bytes": form.path.stat().st_size,
        "ratio": 4 * sum(p.numel() for p in dense.parameters()) / form.path.stat().st_size,
        "clean": accuracy(form.model, x[:CLEAN], y[:CLEAN]).json(),
        "latency": times["form"].json(),
        "at": {},
    }
    rows = x[: case.attacked], y[: case.attacked]
    for eps in case.eps:
        found["at"][f"{eps:.6g}"] = {"eps": eps} | attacked(case, form, rows, eps, way == "dense")
    return found


def attacked(
    case: Case, form: Form, rows: tuple[Tensor, Tensor], eps: float, original: bool
) -> dict[str, Any]:
    """Return what attacks leave of one form, and which of them did it."""
    surrogates = None if original else {"dense": subject(case)[0]}
    judged = robustness(
        form.model, rows, linf, eps, with_curve=False, seed=SEED, twin=form.twin,
        surrogates=surrogates,
    )  # fmt: skip
    found = {
        "robust": judged.robust.json(),
        "standing": judged.survey.standing.tolist(),
        "transfer_from_dense": accuracy(form.model, carried(case, eps), rows[1]).json(),
        "stages": {s.name: [s.entered, s.broke] for s in judged.stages},
        "flags": [flag.name for flag in judged.flags],
        "seconds": round(judged.seconds, 1),
    }
    if form.twin is not None:  # what one would believe who only asked the kernels
        asked = square(eps, queries=QUERIES, seed=SEED)(adapt(form.model), *rows)
        found["asked_only"] = Share.of(~asked.success).json()
    return found


def run(wanted: tuple[str, ...]) -> None:
    """Measure the networks whose names have one of these words (all where there is none)."""
    figures: dict[str, Any] = {}
    for name, case in CASES.items():
        if wanted and not any(word.lower() in name.lower() for word in wanted):
            continue
        figures[name] = {}
        for way in WAYS:
            key = f"{case.file}-{''.join(c if c.isalnum() else '_' for c in way)}"
            found = KEPT(key, lambda name=name, way=way: measure(name, way))  # type: ignore[misc]
            figures[name][way] = found
            at = {e: (a["robust"]["value"], a["seconds"]) for e, a in found["at"].items()}
            print(name, way, found["bytes"], found["clean"]["value"], at, flush=True)
        whole = kept() | figures
        ordered = {name: whole[name] for name in CASES if name in whole}
        record.write("compression_robustness", SEED, {"networks": ordered})


def kept() -> dict[str, Any]:
    """Return the networks of the result file."""
    path = record.RESULTS / "compression_robustness.json"
    found = json.loads(path.read_text(encoding="utf-8"))["networks"] if path.exists() else {}
    return {name: forms for name, forms in found.items() if set(forms) == set(WAYS)}


def main() -> None:
    torch.set_num_threads(1)
    if "--page" not in sys.argv:
        run(tuple(sys.argv[1:]))
    compression_robustness_page.write()


if __name__ == "__main__":
    main()
