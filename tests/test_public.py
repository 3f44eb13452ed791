"""The public names: listed once, importable, documented."""

from __future__ import annotations

import inspect

import pytest

import walnut

NAMES = {
    "WalnutError", "WalnutWarning",
    "noise", "fgsm", "bim", "pgd", "mi_fgsm", "di_fgsm", "apgd", "odi_pgd",
    "saliency",
    "represent", "bake", "pack", "unpack", "prune", "share",
    "shrink", "quantise", "factorise", "separate", "winograd",
    "build", "load", "save", "load_data",
    "fit",
    "accuracy", "robust_accuracy", "robustness", "transfer_table", "cost",
    "train", "compress", "audit", "robust",
    "check_attack", "check_representation", "check_explainer",
}  # fmt: skip


def test_the_list_of_public_names() -> None:
    assert set(walnut.__all__) == NAMES | {"__version__"}
    assert set(walnut.__all__) <= set(dir(walnut))


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_public_name_is_there_and_says_what_it_is(name: str) -> None:
    found = getattr(walnut, name)
    assert callable(found)
    assert len(inspect.getdoc(found) or "") > 20
    assert found.__module__.startswith("walnut.")


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_argument_of_a_public_function_is_annotated(name: str) -> None:
    found = getattr(walnut, name)
    if inspect.isclass(found):
        return
    signature = inspect.signature(found)
    bare = [p.name for p in signature.parameters.values() if p.annotation is p.empty]
    assert not bare, f"{name}: {', '.join(bare)}"
    assert signature.return_annotation is not signature.empty


@pytest.mark.parametrize("name", ["attacks", "nets", "data", "core", "recipes", "export"])
def test_rooms_are_there_without_their_own_import(name: str) -> None:
    assert inspect.ismodule(getattr(walnut, name))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'pdg'"):
        walnut.pdg  # noqa: B018


def test_the_version_is_a_version() -> None:
    assert all(part.isdigit() for part in walnut.__version__.split("."))
