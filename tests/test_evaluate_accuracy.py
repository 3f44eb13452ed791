import math

import pytest
import torch
from torch import nn

from networks import images, labelled, small_net
from walnut import WalnutError
from walnut.attacks import fgsm, noise, pgd
from walnut.evaluate import Share, accuracy, cost, latency, robust_accuracy, transfer_table
from walnut.weights import prune, share


def test_wilson_interval_by_hand_and_at_the_ends():
    found = Share.count(8, 10)
    # roots of (p - 0.8)^2 = z^2 p (1 - p) / 10
    z2 = 1.959964**2
    a, b, c = 1 + z2 / 10, -(1.6 + z2 / 10), 0.64
    roots = [(-b + s * math.sqrt(b * b - 4 * a * c)) / (2 * a) for s in (-1, 1)]
    assert [found.low, found.high] == pytest.approx(roots, abs=1e-4)
    assert (Share.count(0, 10).low, Share.count(10, 10).high) == (0.0, 1.0)
    assert math.isnan(Share.count(0, 0).value)
    assert Share.count(0, 0).json()["value"] is None


def test_accuracy_counts_and_leaves_the_network_alone():
    net = small_net().train()
    x = images(30)
    with torch.no_grad():
        y = small_net()(x).argmax(1)
    y[:6] = (y[:6] + 1) % 5
    assert accuracy(net, x, y, batch_size=7) == Share.count(24, 30)
    assert net.training
    assert net[1].num_batches_tracked == 0


def test_accuracy_refuses_labels_and_answers_it_cannot_count():
    with pytest.raises(WalnutError, match="label 7 is out of range"):
        accuracy(small_net(), images(), torch.full((12,), 7))
    with pytest.raises(WalnutError, match="no examples"):
        accuracy(small_net(), images()[:0], torch.zeros(0, dtype=torch.int64))
    with pytest.raises(WalnutError, match="does not take a batch of shape"):
        accuracy(small_net(), images(channels=3), torch.zeros(12, dtype=torch.int64))
    sick = small_net()
    sick[-1].bias.data[2] = float("nan")
    with pytest.raises(WalnutError, match="not a number"):
        accuracy(sick, images(), torch.zeros(12, dtype=torch.int64))


def test_the_three_denominators_add_up():
    net = small_net()
    x, y = labelled(net, n=50)
    y[:10] = (y[:10] + 1) % 5
    found = robust_accuracy(net, x, y, pgd(0.03, steps=5))
    assert found.clean == Share.count(40, 50)
    assert found.robust.total == 50
    assert found.fooled.total == 40
    assert found.robust.correct == 40 - found.fooled.correct
    assert found.robust.correct <= 40
    told = found.json()
    assert told["attack"] == repr(pgd(0.03, steps=5))


def test_wrong_examples_never_count_as_robust_even_if_an_attack_mends_them():
    net = small_net()
    x = images(50)
    with torch.no_grad():
        target = net(x).topk(2).indices[:, 1]
    mended = robust_accuracy(net, x, target, pgd(0.3, steps=10, targeted=True))
    assert mended.adversarial.success.any()
    assert mended.robust.correct == 0


def test_a_targeted_attack_is_judged_by_the_true_label():
    net = small_net()
    x, y = labelled(net, n=40)
    target = (y + 2) % 5
    found = robust_accuracy(net, x, y, pgd(0.1, steps=5, targeted=True), target)
    with torch.no_grad():
        left = net(found.adversarial.x).argmax(1) == y
    assert found.robust.correct == int(left.sum())


def test_the_transfer_table_is_what_its_cells_say():
    nets = {"a": small_net(seed=0), "b": small_net(seed=1), "c": small_net(seed=2)}
    x = images(30)
    with torch.no_grad():
        y = nets["a"](x).argmax(1)
    tables = transfer_table(nets, x, y, attack=fgsm, eps=(0.02, 0.2), control=noise)
    assert [t.eps for t in tables] == [0.02, 0.2]
    for table in tables:
        for i, source in enumerate(nets.values()):
            made = fgsm(table.eps)(source, x, y).x
            for j, target in enumerate(nets.values()):
                assert table.accuracy[i][j] == accuracy(target, made, y)
        assert table.control[0] == accuracy(nets["a"], noise(table.eps)(nets["a"], x, y).x, y)
    assert tables[1].accuracy[0][0].value < tables[1].clean[0].value
    assert tables[0].json()["names"] == ["a", "b", "c"]
    with pytest.raises(WalnutError, match="at least one"):
        transfer_table({}, x, y, attack=fgsm, eps=(0.1,), control=noise)


def test_costs_are_those_of_the_shapes():
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5)
    )
    found = cost(net, (3, 6, 6))
    assert found.parameters == 3 * 8 * 9 + 8 + 8 * 36 * 5 + 5
    assert found.multiply_adds == 36 * 8 * 27 + 8 * 36 * 5
    assert found.nonzeros == found.parameters
    assert found.fp32_bytes == 4 * found.parameters


def test_costs_see_through_representations():
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 50, bias=False))
    share(prune(net, {"1.weight": 0.25}), {"1.weight": 3})
    found = cost(net, (1, 8, 8))
    assert found.parameters == 3200
    assert found.nonzeros == 800
    assert found.multiply_adds == 3200


def test_latency_compares_in_turn():
    slow = nn.Sequential(nn.Linear(400, 400), *[nn.Linear(400, 400) for _ in range(20)])
    fast = nn.Linear(400, 400).train()
    found = latency({"slow": slow, "fast": fast}, torch.rand(8, 400), rounds=9)
    assert found["slow"].ratio_to_dense == 1.0
    assert found["fast"].ratio_to_dense < 0.7
    assert found["fast"].low_ms <= found["fast"].median_ms <= found["fast"].high_ms
    assert found["fast"].batch == 8
    assert fast.training
    with pytest.raises(WalnutError, match="at least 3"):
        latency({"fast": fast}, torch.rand(1, 400), rounds=2)
