"""Every attack in the table keeps every promise."""

import pytest
import torch

from instances import ATTACKS, GRADIENT_ATTACKS, TARGETED, VECTOR_ATTACKS
from networks import images, labelled, linear_net, small_net
from walnut import WalnutError, attacks
from walnut.attacks import apgd, bim, fgsm, noise, pgd
from walnut.attacks.common import check_bounds
from walnut.attacks.lines import mean_gradient
from walnut.checks import check_attack
from walnut.core import constraints as c
from walnut.core.objectives import cross_entropy
from walnut.core.queried import check_numbers
from walnut.evaluate import robust_accuracy


@pytest.mark.parametrize("name", ATTACKS)
def test_the_contract_on_images(name):
    check_attack(ATTACKS[name])


@pytest.mark.parametrize("name", VECTOR_ATTACKS)
@pytest.mark.parametrize("classes", [2, 3])
def test_the_contract_on_vectors_and_few_classes(name, classes):
    check_attack(VECTOR_ATTACKS[name], shape=(12,), classes=classes)


@pytest.mark.parametrize("name", ATTACKS)
def test_three_channels_and_another_size(name):
    check_attack(ATTACKS[name], shape=(3, 10, 6), classes=3)


@pytest.mark.parametrize("name", ATTACKS)
def test_results_stay_inside_the_constraint(name):
    net = small_net()
    x, y = labelled(net)
    found = ATTACKS[name](net, x, y)
    assert ATTACKS[name].constraint.contains(found.x, x).all()
    for norm in ("linf", "l2", "l1", "l0"):
        assert found.norms[norm].shape == (len(x),)


@pytest.mark.parametrize(
    "name", ["fgsm", "fgsm-l2", "bim", "pgd", "pgd-l2", "pgd-restarts", "mi-fgsm"]
)
def test_an_attack_beats_noise_of_the_same_norm(name):
    net = small_net()
    x, y = labelled(net, n=60)
    attack = ATTACKS[name]
    control = noise(0.5, norm=c.l2, draws=3) if "l2" in name else noise(0.1, draws=3)
    loss = cross_entropy()
    with torch.no_grad():
        found, noisy = attack(net, x, y), control(net, x, y)
        assert loss(net, found.x, y).mean() > loss(net, noisy.x, y).mean() + 0.01
    assert found.success.sum() > noisy.success.sum()


@pytest.mark.parametrize("name", GRADIENT_ATTACKS)
def test_the_loss_ends_above_where_it_began(name):
    net = small_net()
    x, y = labelled(net, n=40)
    found = GRADIENT_ATTACKS[name](net, x, y)
    loss = cross_entropy()
    with torch.no_grad():
        assert (loss(net, found.x, y) >= loss(net, x, y) - 1e-6).float().mean() > 0.95


@pytest.mark.parametrize("name", TARGETED)
def test_a_targeted_attack_moves_towards_its_target(name):
    net = small_net()
    x, y = labelled(net, n=40)
    target = (y + 1) % 5
    found = TARGETED[name](net, x, target)
    with torch.no_grad():
        assert torch.equal(net(found.x).argmax(1) == target, found.success)
        p_before, p_after = (net(z).softmax(1).gather(1, target[:, None]) for z in (x, found.x))
    assert (p_after > p_before).float().mean() > 0.95


def test_fgsm_on_a_linear_network_is_the_best_any_linf_perturbation_can_do():
    net = linear_net(classes=2)
    x = torch.rand(20, 6, dtype=torch.float64) * 0.5 + 0.25
    with torch.no_grad():
        y = net(x).argmax(1)
        found = fgsm(0.1)(net, x, y)
        w = net.weight[0] - net.weight[1]
        sign = torch.where(y == 0, 1.0, -1.0).double()
        margin = sign * ((found.x @ w) + (net.bias[0] - net.bias[1]))
        clean = sign * ((x @ w) + (net.bias[0] - net.bias[1]))
    assert torch.allclose(margin, clean - 0.1 * w.abs().sum())


@pytest.mark.parametrize(
    ("norm", "eps", "dual"),
    [(c.linf, 0.1, 1), (c.l2, 0.2, 2), (c.l1, 0.3, float("inf"))],
)
def test_pgd_on_a_linear_network_reaches_the_closed_form(norm, eps, dual):
    net = linear_net(classes=2)
    x = torch.rand(20, 6, dtype=torch.float64) * 0.3 + 0.35
    with torch.no_grad():
        y = net(x).argmax(1)
        attack = pgd(eps, norm=norm, steps=50, step_size=eps / 5, early_stop=False)
        found = attack(net, x, y)
        w, b = net.weight[0] - net.weight[1], net.bias[0] - net.bias[1]
        sign = torch.where(y == 0, 1.0, -1.0).double()
        reached = sign * (x @ w + b) - sign * (found.x @ w + b)
        best = eps * torch.linalg.vector_norm(w, dual)
    assert (reached <= best + 1e-9).all()
    assert (reached >= 0.98 * best).all()


def test_more_steps_restarts_and_radius_never_hurt_much():
    net = small_net()
    x, y = labelled(net, n=80)

    def fooled(**options):
        return int(pgd(options.pop("eps", 0.05), **options)(net, x, y).success.sum())

    assert fooled(steps=10) >= fooled(steps=1) - 1
    assert fooled(restarts=4, steps=3) >= fooled(restarts=1, steps=3)
    assert fooled(eps=0.1) >= fooled(eps=0.05) >= fooled(eps=0.01)


def test_radius_zero_changes_nothing():
    net = small_net()
    x, y = labelled(net)
    for attack in (fgsm(0.0), bim(0.0), pgd(0.0), noise(0.0)):
        assert torch.equal(attack(net, x, y).x, x)


def test_a_wrong_example_is_decided_at_the_start_by_pgd_and_moved_by_fgsm():
    net = small_net()
    x, y = labelled(net)
    wrong = (y + 1) % 5
    early = bim(0.1)(net, x, wrong)
    assert early.success.all()
    assert (early.first_success == 0).all()
    assert torch.equal(early.x, x)
    assert (fgsm(0.1)(net, x, wrong).norms["linf"] > 0).all()


def test_the_repr_is_a_record_without_addresses_and_equal_parts_are_equal():
    for attack in ATTACKS.values():
        assert " at 0x" not in repr(attack)
    assert pgd(0.1) == pgd(0.1)
    assert pgd(0.1) != pgd(0.2)
    net = small_net()
    x, y = labelled(net)
    assert pgd(0.1)(net, x, y).attack == repr(pgd(0.1))


@pytest.mark.parametrize(
    ("x", "y", "sentence"),
    [
        (images() * 255, None, "divide by 255"),
        ((images() * 255).byte(), None, "x.float"),
        (images() * 2 - 1, None, "undo the normalisation"),
        (images() * float("nan"), None, "NaN"),
        (images(), torch.arange(12), "out of range: the network has 5 classes"),
        (images(), -torch.ones(12, dtype=torch.int64), "label -1 is out of range"),
        (images(), torch.zeros(3, dtype=torch.int64), "12 examples but 3 labels"),
        (images(channels=3), None, "does not take a batch of shape"),
        (images()[:0], torch.zeros(0, dtype=torch.int64), "no examples"),
        (images(2), torch.tensor([1.0, 2.0]), r"labels are whole numbers.*y.long"),
        (images(2), torch.eye(5)[:2], r"labels are whole numbers.*y.argmax\(1\)"),
        (images(1), torch.tensor(1), r"labels are whole numbers.*y.flatten"),
        (images().double(), None, r"x.float\(\) and net.float\(\)"),
    ],
)
@pytest.mark.parametrize("attack", [fgsm(0.1), pgd(0.1), noise(0.1)], ids=["fgsm", "pgd", "noise"])
def test_bad_input_is_named_with_its_remedy(attack, x, y, sentence):
    y = torch.zeros(12, dtype=torch.int64) if y is None else y
    with pytest.raises(WalnutError, match=sentence):
        attack(small_net(), x, y)


WHOLE = {
    "pgd": pgd(0.05), "noise": noise(0.05), "apgd": apgd(0.05), "apgd_t": attacks.apgd_t(0.05, steps=3),
    "square": attacks.square(0.05, queries=20), "hops": attacks.basin_hopping(0.05, steps=3, hops=2),
    "vmi_fgsm": attacks.vmi_fgsm(0.05, steps=2), "fmn": attacks.fmn(steps=5), "fab": attacks.fab(steps=3),
    "labels": attacks.hop_skip_jump(steps=1), "lines": attacks.linear_fooling(mean_gradient(images())),
    "universal": attacks.universal_sgd(0.05, epochs=1),
}  # fmt: skip


@pytest.mark.parametrize("name", WHOLE)
def test_labels_are_any_whole_numbers(name):
    net, attack = small_net(), WHOLE[name]
    x, y = labelled(net, n=6)
    found = attack(net, x, y)
    for kind in (torch.uint8, torch.int16, torch.int32):
        again = attack(net, x, y.to(kind))
        assert torch.equal(again.x, found.x)
        assert torch.equal(again.success, found.success)
        assert robust_accuracy(net, x, y.to(kind), attack).clean.correct == 6


def test_bounds_that_are_none():
    net = small_net()
    x, y = labelled(net)
    upside_down = {"bounds": (1.0, 0.0)}
    made = (attacks.fmn(**upside_down), attacks.hop_skip_jump(**upside_down))
    for ask in (lambda: pgd(0.05, **upside_down), *(lambda a=a: a(net, x, y) for a in made)):
        with pytest.raises(WalnutError, match=r"the lower one first.*not \(1.0, 0.0\)"):
            ask()
    for bounds in ("01", (0, 1, 2), (0, "1"), (0.0, float("nan")), 1):
        with pytest.raises(WalnutError, match="bounds are two numbers"):
            check_bounds(bounds)
    for bounds in (None, (0, 1), [-1.0, 1.0], (x.min(), x.max())):
        check_bounds(bounds)


def test_counts_that_are_none():
    x, y = labelled(small_net())
    for seed, size, told in (
        (1.5, 8, r"seed.*1\.5"),
        ("0", 8, "seed"),
        (0, 0, "batch_size"),
        (0, 2.0, "batch_size"),
    ):
        with pytest.raises(WalnutError, match=told):
            check_numbers(seed, size)
    with pytest.raises(WalnutError, match="batch_size"):
        attacks.fmn(batch_size=0)(small_net(), x, y)
    with pytest.raises(WalnutError, match=r"legs of 10 steps, 3 of them .* in 3 steps.*more steps"):
        attacks.bracket(steps=3)


def test_a_network_of_another_precision_is_named():
    x, y = labelled(small_net())
    for change in (torch.nn.Module.double, torch.nn.Module.half):
        with pytest.raises(WalnutError, match=r"are float32 and the network is not.*net.float\(\)"):
            pgd(0.05)(change(small_net()), x, y)


def test_bad_radii_are_named():
    with pytest.raises(WalnutError, match="8/255"):
        pgd(8)
    with pytest.raises(WalnutError, match="further apart"):
        pgd(100.0, norm=c.l2)(small_net(), images(), torch.zeros(12, dtype=torch.int64))
    with pytest.raises(WalnutError, match="linf, l2, l1"):
        pgd(0.1, norm=lambda eps: c.linf(eps))


class Sick(torch.nn.Module):
    def forward(self, x):
        return x.flatten(1)[:, :5] / 0


def test_a_network_that_answers_nan_is_named():
    with pytest.raises(WalnutError, match="not a number"):
        pgd(0.1)(Sick().eval(), images(), torch.zeros(12, dtype=torch.int64))


def test_a_network_in_train_mode_is_attacked_in_eval_mode_with_a_word():
    net = small_net().train()
    x = images()
    with pytest.warns(UserWarning, match="train mode"):
        found = pgd(0.05)(net, x, torch.zeros(12, dtype=torch.int64))
    assert net.training
    assert net[1].num_batches_tracked == 0
    with torch.no_grad():
        assert torch.equal(net.eval()(found.x).argmax(1), found.prediction)


class Detached(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = small_net()

    def forward(self, x):
        return self.net(x).detach()


def test_a_network_without_a_gradient_is_named():
    with pytest.raises(WalnutError, match="no gradient reaches the input"):
        pgd(0.05)(Detached().eval(), images(), torch.zeros(12, dtype=torch.int64))
    noise(0.05)(Detached().eval(), images(), torch.zeros(12, dtype=torch.int64))


def test_attacks_work_under_no_grad_and_inference_mode_and_on_plain_functions():
    net = small_net()
    x, y = labelled(net)
    want = pgd(0.1)(net, x, y).x
    with torch.no_grad():
        assert torch.equal(pgd(0.1)(net, x, y).x, want)
    with torch.inference_mode():
        assert torch.equal(pgd(0.1)(net, x, y).x, want)
    assert torch.equal(pgd(0.1)(lambda z: net(z), x, y).x, want)


@pytest.mark.parametrize("attack", [fgsm(0.1), noise(0.1)], ids=["gradients", "queries"])
def test_a_network_that_changes_its_input_is_named(attack):
    net = small_net()
    x, y = labelled(net)
    kept = x.clone()
    with pytest.raises(WalnutError, match=r"changes its input in place.*clone"):
        attack(lambda v: net(v.sub_(0.5)), x, y)
    assert torch.equal(x, kept)


def test_a_network_that_refuses_what_is_left_is_named():
    net = small_net()
    x, y = labelled(net)
    y[0] = (y[0] + 1) % 5  # is decided at once, and eleven are left

    def picky(v):
        if len(v) < 12:
            raise RuntimeError("twelve at least")
        return net(v)

    with pytest.raises(
        WalnutError, match=r"\(11, 1, 8, 8\), though it took others: twelve at least"
    ):
        apgd(0.001, steps=3)(picky, x, y)


def test_votes_are_whole_numbers_and_logits_all_the_same():
    net = small_net()
    x, y = labelled(net)
    found = noise(0.3, draws=20)(lambda v: (8 * net(v)).round().long(), x, y)
    same = noise(0.3, draws=20)(lambda v: (8 * net(v)).round(), x, y)
    assert torch.equal(found.x, same.x)
    for answer in (net(x) > 0, net(x).to_sparse(), net(x).to(torch.complex64)):
        with pytest.raises(WalnutError, match="must return logits"):
            noise(0.3)(lambda v, answer=answer: answer, x, y)


def test_probabilities_in_place_of_logits_are_named():
    net = torch.nn.Sequential(small_net(), torch.nn.Softmax(1)).eval()
    with pytest.warns(UserWarning, match="returns probabilities"):
        pgd(0.05)(net, images(), torch.zeros(12, dtype=torch.int64))
