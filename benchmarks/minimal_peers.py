"""The minimal-perturbation attacks of Foolbox, ART and torchattacks, called alike on (model, x, y)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import peers

Call = Callable[[nn.Module, Tensor, Tensor], Tensor]


def of_foolbox(steps: int) -> dict[str, dict[str, Call]]:
    """Return Foolbox's minimal attacks by norm; ``steps`` of the longest run."""
    fb = peers.foolbox()
    if fb is None:
        return {}
    a = fb.attacks

    def run(attack: Any) -> Call:
        def call(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            return attack(fb.PyTorchModel(model, bounds=(0, 1)), x, y, epsilons=None)[0]

        return call

    found: dict[str, dict[str, Call]] = {n: {} for n in ("l2", "linf", "l1", "l0")}
    for s in (100, steps):
        found["l2"][f"foolbox DDN {s}"] = run(a.DDNAttack(steps=s))
        found["l2"][f"foolbox FMN {s}"] = run(a.L2FMNAttack(steps=s))
        found["linf"][f"foolbox FMN {s}"] = run(a.LInfFMNAttack(steps=s))
        found["l1"][f"foolbox FMN {s}"] = run(a.L1FMNAttack(steps=s))
        found["l0"][f"foolbox FMN {s}"] = run(a.L0FMNAttack(steps=s))
    cw = a.L2CarliniWagnerAttack(binary_search_steps=9, steps=steps // 4, stepsize=1e-2)
    ead = a.EADAttack(binary_search_steps=9, steps=steps // 4, decision_rule="L1")
    found["l2"][f"foolbox C&W 9x{steps // 4}"] = run(cw)
    found["l2"]["foolbox DeepFool"] = run(a.L2DeepFoolAttack(steps=50))
    found["linf"]["foolbox DeepFool"] = run(a.LinfDeepFoolAttack(steps=50))
    found["l1"][f"foolbox EAD 9x{steps // 4}"] = run(ead)
    return found


def of_art(steps: int) -> dict[str, dict[str, Call]]:
    """Return ART's minimal attacks by norm."""
    estimators, evasion = peers.art()
    if estimators is None:
        return {}

    def run(kind: Any, **settings: Any) -> Call:
        def call(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            wrapped = estimators.PyTorchClassifier(
                model, nn.CrossEntropyLoss(), tuple(x.shape[1:]), 10, clip_values=(0.0, 1.0),
                device_type="cpu",
            )  # fmt: skip
            attack = kind(wrapped, batch_size=len(x), verbose=False, **settings)
            given = () if kind is evasion.DeepFool else (np.eye(10, dtype=np.float32)[y.numpy()],)
            return torch.from_numpy(attack.generate(x.numpy(), *given))

        return call

    part = steps // 25
    return {
        "l2": {
            f"art C&W 10x{part}": run(evasion.CarliniL2Method, max_iter=part),
            "art DeepFool": run(evasion.DeepFool, max_iter=50),
        },
        "linf": {
            "art C&W": run(
                evasion.CarliniLInfMethod,
                max_iter=10,
                decrease_factor=0.7,
                initial_const=0.1,
                const_factor=5.0,
            ),
        },  # at its defaults it had not ended after six minutes
        "l1": {
            f"art ElasticNet 9x{part}": run(evasion.ElasticNet, max_iter=part, decision_rule="L1")
        },
    }


def of_torchattacks(steps: int) -> dict[str, dict[str, Call]]:
    """Return torchattacks' minimal attacks by norm."""
    ta = peers.torchattacks()
    if ta is None:
        return {}
    part = steps // 4
    return {
        "l2": {
            f"torchattacks CW {steps}": lambda m, x, y: ta.CW(m, c=1, steps=steps, lr=0.01)(x, y),
            "torchattacks DeepFool": lambda m, x, y: ta.DeepFool(m, steps=50)(x, y),
        },
        "l1": {
            f"torchattacks EADL1 9x{part}": lambda m, x, y: ta.EADL1(m, max_iterations=part)(x, y)
        },
    }
