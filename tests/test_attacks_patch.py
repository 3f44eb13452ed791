"""Patches: exact placement, closed forms on linear networks, honest counting, and paper."""

import json
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from instances_patch import LOCAL, MASK, READY, SHAPES, Known, learned
from networks import images, labelled, small_net
from walnut import WalnutError, data
from walnut.attacks.patch import local_patch, patch
from walnut.checks import check_attack
from walnut.core.constraints import unconstrained
from walnut.core.draws import Draws
from walnut.core.images import tanh_box
from walnut.core.objectives import margin
from walnut.core.placement import Placement, anywhere, at, circle, square, sticker
from walnut.evaluate import robust_accuracy
from walnut.evaluate.patch import controls, most_typical, patch_success
from walnut.recipes.patch import patch as patch_recipe
from walnut.report.printing import print_patch

STILL = Placement((1.0, 1.0), 0.0, at())


def linear(channels=1, size=8, classes=2, seed=0):
    torch.manual_seed(seed)
    head = torch.nn.Linear(channels * size * size, classes)
    return torch.nn.Sequential(torch.nn.Flatten(), head).eval()


# -- placement ------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_a_patch_as_large_as_the_picture_covers_it_exactly(channels):
    x, p = torch.rand(4, channels, 7, 7), torch.rand(channels, 7, 7)
    painted, cover = STILL(x, p, torch.ones(7, 7), Draws.of(x, 0))
    assert torch.allclose(painted, p.expand_as(x), atol=1e-6)
    assert torch.allclose(cover, torch.ones(4, 1, 7, 7))


def test_a_placement_in_whole_pixels_replaces_just_these_and_follows_the_mask():
    x, p = torch.rand(2, 3, 8, 12).double(), torch.rand(3, 4, 4).double()
    mask = torch.ones(4, 4).double()
    mask[0, 3], mask[2, 2] = 0.0, 0.25
    place = Placement((0.5, 0.5), 0.0, at(8 / 12, 3 / 8))  # the middle at column 8, row 3
    painted, cover = place(x, p, mask, Draws.of(x, 0))
    want, covered = x.clone(), torch.zeros(2, 1, 8, 12).double()
    want[:, :, 1:5, 6:10] = x[:, :, 1:5, 6:10] * (1 - mask) + p * mask
    covered[:, :, 1:5, 6:10] = mask
    assert torch.allclose(painted, want, atol=1e-12)
    assert torch.allclose(cover, covered, atol=1e-12)


def test_a_quarter_turn_of_a_patch_is_rot90():
    x, p = torch.zeros(1, 2, 6, 6).double(), torch.rand(2, 6, 6).double()
    turn = Placement((1.0, 1.0), 90.0, at())
    painted, _ = turn(x, p, torch.ones(6, 6).double(), Known(0.0, 1.0))
    assert torch.allclose(painted[0], p.rot90(1, (1, 2)), atol=1e-12)
    painted, _ = turn(x, p, torch.ones(6, 6).double(), Known(0.0, 0.0))
    assert torch.allclose(painted[0], p.rot90(-1, (1, 2)), atol=1e-12)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 24, 40)])
@pytest.mark.parametrize("area", [0.05, 0.2])
def test_the_area_asked_for_is_the_area_covered(name, shape, area):
    mask = SHAPES[name](16)
    x = torch.rand(100, *shape)
    angle = 180.0 if name == "circle" else 0.0  # the corners of others may leave the picture
    place = Placement(degrees=angle).covering(area, mask, shape)
    _, cover = place(x, torch.rand(shape[0], *mask.shape), mask, Draws.of(x, 0))
    assert float(cover.mean()) == pytest.approx(area, rel=0.03)
    assert place.degrees == angle


def test_anywhere_stays_inside_and_goes_everywhere():
    x, mask = torch.rand(600, 1, 12, 20), torch.ones(6, 6)
    _, cover = Placement((0.5, 0.5), 0.0, anywhere())(x, mask[None], mask, Draws.of(x, 0))
    assert torch.allclose(cover.sum((1, 2, 3)), torch.full((600,), 36.0), atol=1e-3)
    reached = cover.amax((0, 1))
    assert (reached > 0.3).all()
    columns = (cover[:, 0].sum(1) * torch.arange(20)).sum(1) / 36 + 0.5  # where the middles are
    assert float(columns.mean()) == pytest.approx(10, abs=0.5)
    assert float(columns.std()) == pytest.approx(14 / 12**0.5, abs=0.3)


def test_scale_and_angle_fill_their_ranges():
    x, mask = torch.rand(500, 1, 20, 20), torch.ones(5, 5)
    _, cover = Placement((0.2, 0.6), 0.0)(x, mask[None], mask, Draws.of(x, 0))
    side = cover.sum((1, 2, 3)).sqrt() / 20
    assert 0.19 < side.min() < 0.22
    assert 0.58 < side.max() < 0.61
    assert float(side.mean()) == pytest.approx(0.4, abs=0.02)


def test_a_placement_is_per_picture_and_gradients_stay_under_the_mask():
    x, mask = torch.rand(6, 2, 9, 11).double(), circle()(6).double()
    place = Placement((0.4, 0.9), 60.0)
    p = torch.rand(2, 6, 6).double().requires_grad_()
    whole, _ = place(x, p, mask, Draws.of(x, 0))
    for i in range(6):
        alone, _ = place(x[i : i + 1], p, mask, Draws.of(x[i : i + 1], 0))
        assert torch.allclose(alone[0], whole[i], atol=1e-12)
    own = torch.stack([p * (i + 1) / 6 for i in range(6)])
    each, _ = place(x, own, mask, Draws.of(x, 0))
    assert torch.allclose(each[5], whole[5], atol=1e-12)
    assert not torch.allclose(each[0], whole[0])
    (grad,) = torch.autograd.grad(whole.sum(), p)
    assert (grad[:, mask == 0] == 0).all()
    assert (grad[:, mask == 1] > 0).float().mean() > 0.9
    keys = Draws.of(x, 0)
    assert torch.autograd.gradcheck(lambda z: place(x, z, mask, keys.fold(1))[0], p)


def test_shapes_are_what_they_are_called():
    assert torch.equal(square()(3), torch.ones(3, 3))
    assert float(circle()(60).mean()) == pytest.approx(torch.pi / 4, abs=0.01)
    assert circle()(5)[0].tolist() == [0, 1, 1, 1, 0]
    mask = torch.rand(6, 4) > 0.5
    assert torch.equal(sticker(mask)(6), mask.float())
    half = sticker(torch.ones(6, 4))(3)
    assert torch.allclose(half, torch.ones(3, 2))


def test_bad_placements_and_shapes_are_named():
    with pytest.raises(WalnutError, match="scale"):
        Placement((0.5, 0.2))
    with pytest.raises(WalnutError, match="scale"):
        Placement((0.5, 1.2))
    with pytest.raises(WalnutError, match=r"covers at most 0\.78"):
        Placement().covering(0.9, circle()(200), (1, 28, 28))
    with pytest.raises(WalnutError, match="divide an 8-bit alpha"):
        sticker(torch.full((3, 3), 255.0))
    with pytest.raises(WalnutError, match="divide an 8-bit alpha"):
        sticker(torch.zeros(3, 3))
    with pytest.raises(WalnutError, match="it needs 3 channels"):
        STILL(images(channels=3), torch.rand(1, 4, 4), torch.ones(4, 4), Draws.of(images(), 0))


# -- making one -----------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_on_a_linear_network_every_texel_goes_to_the_better_end(channels):
    net = linear(channels)
    x, y = torch.rand(20, channels, 8, 8), torch.zeros(20, dtype=torch.int64)
    place = Placement((0.5, 0.5), 0.0, at(0.25, 0.75))  # the lower left quarter
    gain = (net[1].weight[1] - net[1].weight[0]).reshape(channels, 8, 8)[:, 4:, :4]
    towards = patch(1, shape=square(), size=4, placement=place, steps=60)(net, x, y)
    assert torch.allclose(towards.pattern, (gain > 0).float(), atol=1e-5)
    away = patch(None, shape=square(), size=4, placement=place, steps=60)(net, x, y)
    assert torch.equal(away.pattern, towards.pattern)  # with two classes, the same thing
    back = patch(0, shape=square(), size=4, placement=place, steps=60)(net, x, 1 - y)
    assert torch.allclose(back.pattern, (gain < 0).float(), atol=1e-5)
    soft = patch(
        1, shape=square(), size=4, placement=place, steps=200, image=tanh_box(),
        constraint=unconstrained(), objective=margin(),
    )(net, x, y)  # fmt: skip
    assert ((soft.pattern - towards.pattern).abs() < 0.2).all()


def test_a_patch_beats_its_controls_on_pictures_it_was_not_made_on():
    net, x, y, unseen, labels = learned()
    made = patch(3, placement=Placement((0.4, 0.6)), size=6, steps=150)(net, x, y)
    assert np.mean(made.history[-20:]) > np.mean(made.history[:20]) + 0.3
    point = patch_success(net, made, unseen, labels, [Placement((0.6, 0.6))])[0]
    assert point.patch.low > point.noise.high
    assert point.patch.value > point.picture.value
    assert point.patch.value > 10 * point.clean.value
    assert point.patch.total == int((labels != 3).sum())


def test_the_same_patch_whatever_the_order_of_the_pictures_and_another_with_another_seed():
    net, x, y, *_ = learned()
    maker = patch(2, size=5, steps=8, pictures=30)
    made = maker(net, x[:200], y[:200])
    order = torch.randperm(200)
    again = maker(net, x[:200][order], y[:200][order])
    assert torch.allclose(again.pattern, made.pattern, atol=1e-4)
    assert torch.equal(maker(net, x[:200], y[:200]).pattern, made.pattern)
    other = patch(2, size=5, steps=8, pictures=30, seed=1)(net, x[:200], y[:200])
    assert not torch.allclose(other.pattern, made.pattern, atol=0.1)


def test_it_counts_its_passes_and_leaves_the_network_alone():
    net = small_net()
    x, y = labelled(net)
    before = [p.clone() for p in net.state_dict().values()]
    state = torch.get_rng_state()
    calls = 0

    def counted(z):
        nonlocal calls
        calls += len(z)
        return net(z)

    made = patch(1, size=4, steps=5, pictures=7)(counted, x, y)
    assert (made.forward, made.backward) == (calls, 35)
    assert len(made.history) == 5
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(before, net.state_dict().values(), strict=True))
    with torch.inference_mode():
        again = patch(1, size=4, steps=5, pictures=7)(net, x.clone(), y.clone())
    assert torch.equal(again.pattern, made.pattern)


def test_pictures_of_the_target_class_teach_nothing():
    net = linear(classes=3)
    x = torch.rand(30, 1, 8, 8)
    y = torch.arange(30) % 3
    maker = patch(1, size=4, steps=5, pictures=100)
    assert torch.equal(maker(net, x, y).pattern, maker(net, x[y != 1], y[y != 1]).pattern)


# -- a made patch is an attack --------------------------------------------------------------------


@pytest.mark.parametrize("name", READY)
@pytest.mark.parametrize("classes", [2, 5])
def test_a_patch_keeps_the_contract_of_any_attack(name, classes):
    check_attack(READY[name], classes=classes)


@pytest.mark.parametrize("name", LOCAL)
def test_a_patch_of_its_own_for_each_picture_keeps_the_contract(name):
    check_attack(LOCAL[name])
    check_attack(LOCAL[name], shape=(3, 8, 8), classes=2)
    net = small_net()
    x, y = labelled(net)
    found = LOCAL[name](net, x, y)
    assert torch.equal(found.x[:, :, ~MASK], x[:, :, ~MASK])
    assert (found.x != x)[:, :, MASK].float().mean() > 0.9


def test_local_patches_reach_the_closed_form_on_a_linear_network_and_work_on_tables():
    net = torch.nn.Linear(6, 2).double().eval()
    x, y = torch.rand(9, 6).double(), torch.zeros(9, dtype=torch.int64)
    mask = torch.tensor([True, False, True, True, False, False])
    attack = replace(local_patch(mask), early_stop=False)
    gain = net.weight[1] - net.weight[0]
    want = torch.where(mask, (gain > 0).double(), x)
    assert torch.allclose(attack(net, x, y).x, want)
    aimed = replace(local_patch(mask, targeted=True), early_stop=False)
    assert torch.allclose(aimed(net, x, y + 1).x, want)


def test_a_targeted_patch_succeeds_where_its_target_is_read():
    net, _, _, x, y = learned()
    aimed = replace(READY["anywhere"], target=7)
    found = aimed(net, x, y)
    assert torch.equal(found.success, found.prediction == 7)
    left = robust_accuracy(net, x, y, aimed)
    assert left.robust.correct <= left.clean.correct
    assert (found.forward == 1).all()
    assert (found.backward == 0).all()
    moved = replace(aimed, seed=1)(net, x, y)
    assert not torch.equal(moved.x, found.x)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"x": images() * 255}, "divide by 255"),
        ({"x": torch.rand(12, 64)}, "needs images"),
        ({"y": torch.zeros(3, dtype=torch.int64)}, "each with a label"),
        ({"y": torch.full((12,), 9)}, "out of range"),
        ({"y": torch.ones(12, dtype=torch.int64)}, "every picture is of the target class"),
        ({"target": 5}, "label 5 is out of range"),
        ({"model": lambda z: z.flatten(1)[:, :5].detach()}, "no gradient"),
        ({"model": lambda z: z.flatten(1)[:, :5] / 0}, "not a number"),
        ({"x": images()[:0], "y": torch.zeros(0, dtype=torch.int64)}, "needs pictures"),
    ],
)
def test_bad_input_is_named_with_its_remedy(change, sentence):
    given = {"model": small_net(), "x": images(), "y": torch.arange(12) % 5, "target": 1} | change
    with pytest.raises(WalnutError, match=sentence):
        patch(given["target"], size=4, steps=2)(given["model"], given["x"], given["y"])


def test_impossible_settings_are_named():
    for settings in ({"steps": 0}, {"pictures": 0}, {"size": 0}):
        with pytest.raises(WalnutError, match="1 or more"):
            patch(1, **settings)
    with pytest.raises(WalnutError, match="no pixel may change"):
        local_patch(torch.zeros(4, 4, dtype=torch.bool))


# -- how often it works ---------------------------------------------------------------------------


class Bright(torch.nn.Module):
    """Class 1 where a picture is brighter than a tenth on average."""

    def forward(self, x):
        mean = x.flatten(1).mean(1)
        return torch.stack([0.1 + 0 * mean, mean], 1) * 50


def test_success_and_controls_on_a_network_that_measures_light():
    x = 0.02 * torch.rand(40, 1, 20, 20)
    x[30:] = 0.9  # ten of the target class: bright, and the control's picture comes from them
    y = (torch.arange(40) >= 30).long()
    white = replace(READY["anywhere"], pattern=torch.ones(1, 6, 6), mask=torch.ones(6, 6), target=1)
    areas = (0.04, 0.15, 0.3)
    places = [Placement().covering(area, white.mask, (1, 20, 20)) for area in areas]
    points = patch_success(Bright().eval(), white, x, y, places, seed=3)
    assert [p.patch.value for p in points] == [0, 1, 1]
    assert [p.noise.value for p in points] == [0, 0, 1]  # half as bright
    assert [p.picture.value for p in points] == [0, 1, 1]
    assert [p.clean.value for p in points] == [0, 0, 0]
    assert [p.read_right.value for p in points] == [1, 0, 0]
    assert {p.patch.total for p in points} == {30}
    assert [p.area for p in points] == pytest.approx(areas, rel=0.05)
    black = replace(white, pattern=torch.zeros(1, 6, 6), target=None)
    away = patch_success(Bright().eval(), black, x, y, [Placement((1.0, 1.0), 0.0)])[0]
    assert away.patch.total == 40  # those that were right
    assert away.patch.correct == 10  # the bright ones go dark
    assert away.clean.correct == 0
    json.dumps(points[0].json(), allow_nan=False)


def test_patch_and_controls_lie_at_the_same_places():
    made = controls(READY["anywhere"], torch.rand(1, 9, 9), seed=5)
    x = images(channels=1)
    covers = [each.paste(x)[1] for each in (READY["anywhere"], *made.values())]
    assert all(torch.equal(covers[0], cover) for cover in covers)
    noise = made["noise"].pattern
    assert noise.unique().numel() == noise.numel()
    assert set(controls(READY["anywhere"], None, 0)) == {"noise"}


def test_the_typical_picture_is_the_one_the_network_is_surest_of():
    net, _, _, x, y = learned()
    found = most_typical(net, x, y, 4)
    sure = net(x).softmax(1)[:, 4].where(y == 4, -torch.ones(()))
    assert torch.equal(found, x[sure.argmax()])
    assert most_typical(net, x[y != 4], y[y != 4], 4) is None


def test_nothing_left_to_count_is_named():
    net, _, _, x, y = learned()
    only = replace(READY["anywhere"], target=4)
    with pytest.raises(WalnutError, match="no picture is left"):
        patch_success(net, only, x[y == 4], y[y == 4], [Placement()])


# -- paper ----------------------------------------------------------------------------------------


def chunk(path, name):
    content = path.read_bytes()
    at_byte = content.index(name)
    (size,) = struct.unpack(">I", content[at_byte - 4 : at_byte])
    return content[at_byte + 4 : at_byte + 4 + size]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("millimetres", "dpi"), [(50.0, 300), (20.0, 72), (100.0, 150)])
def test_a_printed_patch_has_its_size_its_values_and_its_transparency(
    tmp_path, channels, millimetres, dpi
):
    rng = np.random.default_rng(0)
    p, mask = rng.random((channels, 9, 13)), (rng.random((9, 13)) > 0.4).astype(float)
    mask[0, :2] = 0.5, 1
    path = print_patch(p, mask, tmp_path / "made" / "p.png", millimetres=millimetres, dpi=dpi)
    with Image.open(path) as image:
        image.load()
        assert image.mode == "RGBA"
        assert image.info["dpi"] == pytest.approx((dpi, dpi), rel=1e-3)
        pixels = np.asarray(image)
    across, down, unit = struct.unpack(">IIB", chunk(path, b"pHYs"))
    assert unit == 1  # pixels per metre
    assert across == down
    assert pixels.shape[1] / across == pytest.approx(millimetres / 1000, abs=0.6 / across)
    assert pixels.shape[0] / down == pytest.approx(millimetres / 1000 * 9 / 13, abs=0.6 / down)
    rows = (np.arange(9) + 0.5) * pixels.shape[0] / 9
    columns = (np.arange(13) + 0.5) * pixels.shape[1] / 13
    texels = pixels[rows.astype(int)][:, columns.astype(int)]
    assert (texels[..., 3] == np.rint(255 * mask)).all()
    assert (texels[..., :3] == np.rint(255 * p).transpose(1, 2, 0)).all()
    assert len(np.unique(pixels.reshape(-1, 4), axis=0)) <= 9 * 13  # no value between two
    assert list((tmp_path / "made").iterdir()) == [path]


def test_crop_marks_stand_outside_in_line_with_the_edges(tmp_path):
    p, mask = np.full((1, 4, 4), 0.5), np.ones((4, 4))
    path = print_patch(p, mask, tmp_path / "p.png", millimetres=25.4, dpi=100, border=5.08)
    with Image.open(path) as image:
        pixels = np.asarray(image)
    assert pixels.shape == (140, 140, 4)
    assert (pixels[20:120, 20:120] == (128, 128, 128, 255)).all()
    outside = pixels.copy()
    outside[20:120, 20:120] = 0
    rows, columns = np.nonzero(outside[..., 3])
    assert len(rows)
    assert ((abs(rows - 20) <= 1) | (abs(rows - 120) <= 1) | (abs(columns - 20) <= 1)
            | (abs(columns - 120) <= 1)).all()  # fmt: skip
    assert (outside[20, :12, 3] == 255).all()
    assert (outside[:12, 20, 3] == 255).all()
    assert (outside[120 - 1, -12:, 3] == 255).all()
    assert (outside[..., :3] == 0).all()


@pytest.mark.parametrize(
    ("p", "settings", "sentence"),
    [
        (np.zeros((2, 4, 4)), {}, "1 channel"),
        (np.full((1, 4, 4), 1.5), {}, r"\[0, 1\]"),
        (np.full((1, 4, 4), np.nan), {}, r"\[0, 1\]"),
        (np.zeros((1, 4, 4)), {"millimetres": 0}, "millimetres"),
        (np.zeros((1, 4, 4)), {"millimetres": 0.1}, "too few"),
        (np.zeros((1, 4, 4)), {"millimetres": 2000, "dpi": 4800}, "coarser"),
    ],
)
def test_what_cannot_be_printed_is_named(tmp_path, p, settings, sentence):
    with pytest.raises(WalnutError, match=sentence):
        print_patch(p, np.ones((4, 4)), tmp_path / "p.png", **settings)
    assert not list(tmp_path.iterdir())


# -- the recipe -----------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["3", None])
def test_the_recipe_writes_the_result_the_page_and_the_print(tmp_path, target):
    net = learned()[0]
    result = patch_recipe(
        net, data.load("digits"), out=tmp_path, target=target, areas=(0.2, 0.1), steps=20,
        examples=80, training=200, border=3.0,
    )  # fmt: skip
    kept = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert kept == result
    assert kept["kind"] == "patch"
    points = kept["patch"]["points"]
    assert [p["area"] for p in points] == pytest.approx([0.1, 0.2], rel=0.2)
    assert kept["patch"]["target"] == target
    assert set(kept["rows"][0]["attacks"]) == {"patch-10-percent", "patch-20-percent"}
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "random values" in page
    assert "patch-10-percent" in page
    assert "Patch-20-percent" in page  # a heading
    with Image.open(tmp_path / "patch.png") as image:
        assert image.info["dpi"] == pytest.approx((300, 300), rel=1e-3)
    again = patch_recipe(
        net, data.load("digits"), out=tmp_path / "b", target=target, areas=(0.2, 0.1), steps=20,
        examples=80, training=200,
    )  # fmt: skip
    assert again["patch"] == kept["patch"]


def test_the_recipe_needs_pictures(tmp_path):
    table = replace(data.load("digits"), shape=(64,))
    with pytest.raises(WalnutError, match="needs pictures"):
        patch_recipe(small_net(), table, out=tmp_path)
