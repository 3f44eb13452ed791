"""The same network, examples and start: independent toolkits must come to the same examples."""

import warnings

import pytest
import torch

import parity
import peers
from networks import labelled, small_net
from walnut.attacks import fgsm, pgd
from walnut.evaluate import correct

EPS, STEPS = 0.05, parity.STEPS


@pytest.fixture(params=["torchattacks", "foolbox"])
def peer(request):
    if getattr(peers, request.param)() is None:
        pytest.skip(f"{request.param} is not installed")
    return request.param


@pytest.fixture
def case():
    net = small_net(seed=3)
    x, y = labelled(net, n=40)
    return net.double(), x.double(), y


def test_fgsm_is_theirs(peer, case):
    net, x, y = case
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = parity.fgsm_of_others(net, x, y, EPS)[peer]
    assert (fgsm(EPS)(net, x, y).x - theirs).abs().max() <= 1e-6


def test_pgd_from_the_same_start_is_theirs(peer, case):
    net, x, y = case
    mine = pgd(EPS, steps=STEPS, random_start=False, early_stop=False, keep_best=False)(net, x, y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = parity.pgd_of_others(net, x, y, EPS)[peer]
    assert (mine.x - theirs).abs().max() <= 1e-5
    assert torch.equal(correct(net, theirs, y), ~mine.success)
    early = pgd(EPS, steps=STEPS, random_start=False)(net, x, y)
    assert int((~early.success).sum()) <= int(correct(net, theirs, y).sum())
