import pytest
import torch

from instances import DIRECTIONS, MEMORYLESS
from walnut.core import directions as d
from walnut.core.errors import WalnutError


def grads(n=6, steps=4):
    g = torch.Generator().manual_seed(0)
    return [torch.randn(n, 2, 5, 5, generator=g) for _ in range(steps)]


@pytest.mark.parametrize("name", DIRECTIONS)
def test_a_batch_equals_its_rows_one_by_one(name):
    part = DIRECTIONS[name]
    state = part.init(torch.zeros(6, 2, 5, 5))
    alone = [part.init(torch.zeros(1, 2, 5, 5)) for _ in range(6)]
    for grad in grads():
        step, state = part.update(grad, state)
        for i in range(6):
            row, alone[i] = part.update(grad[i : i + 1], alone[i])
            assert torch.allclose(step[i : i + 1], row, atol=1e-6)


@pytest.mark.parametrize("name", DIRECTIONS)
def test_a_zero_gradient_gives_a_finite_step(name):
    part = DIRECTIONS[name]
    step, _ = part.update(torch.zeros(2, 2, 5, 5), part.init(torch.zeros(2, 2, 5, 5)))
    assert step.isfinite().all()


@pytest.mark.parametrize("name", DIRECTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_dtype_is_kept(name, dtype):
    part = DIRECTIONS[name]
    step, _ = part.update(
        torch.randn(2, 2, 5, 5).to(dtype), part.init(torch.zeros(2, 2, 5, 5, dtype=dtype))
    )
    assert step.dtype == dtype


@pytest.mark.parametrize("name", MEMORYLESS)
def test_a_memoryless_direction_climbs(name):
    for grad in grads():
        step, _ = DIRECTIONS[name].update(grad, ())
        assert ((step * grad).flatten(1).sum(1) > 0).all()


def test_unit_lengths():
    grad = grads()[0]
    assert torch.allclose(d.normalized().update(grad, ())[0].flatten(1).norm(dim=1), torch.ones(6))
    sparse = d.sparse(0.1).update(grad, ())[0].flatten(1)
    assert torch.allclose(sparse.abs().sum(1), torch.ones(6))
    assert ((sparse != 0).sum(1) == 5).all()


def test_a_tiny_gradient_is_normalized_all_the_same():
    tiny = torch.full((1, 4), 1e-36)
    assert torch.allclose(d.normalized().update(tiny, ())[0], torch.full((1, 4), 0.5))


def test_momentum_is_the_closed_form():
    first, second = torch.tensor([[1.0, 3.0]]), torch.tensor([[-2.0, 2.0]])
    m1, state = d.momentum(0.5).update(first, torch.zeros(1, 2))
    m2, _ = d.momentum(0.5).update(second, state)
    assert torch.allclose(m1, torch.tensor([[0.25, 0.75]]))
    assert torch.allclose(m2, torch.tensor([[-0.375, 0.875]]))


def test_nesterov_is_torch_sgd_nesterov_on_normalized_gradients():
    z = torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.SGD([z], lr=1.0, momentum=0.9, nesterov=True)
    part, state = d.nesterov(0.9), torch.zeros(1, 3)
    for grad in (torch.tensor([0.2, -0.3, 0.5]), torch.tensor([0.5, 0.5, 0.0])):
        before = z.detach().clone()
        z.grad = grad.clone()
        optimizer.step()
        step, state = part.update(grad[None], state)
        assert torch.allclose(before - z.detach(), step[0])


def test_blur_keeps_a_constant_and_spreads_a_point():
    flat = d.blurred(5).update(torch.ones(1, 3, 11, 11), ())[0]
    assert torch.allclose(flat[:, :, 3:-3, 3:-3], torch.ones(1, 3, 5, 5))
    point = torch.zeros(1, 2, 11, 11)
    point[0, 0, 5, 5] = 1
    spread = d.blurred(5).update(point, ())[0]
    assert torch.allclose(spread[0, 0].sum(), torch.tensor(1.0))
    assert spread[0, 1].abs().sum() == 0
    assert torch.allclose(spread[0, 0], spread[0, 0].T)


def test_refusals():
    with pytest.raises(WalnutError, match="odd"):
        d.blurred(4)
    with pytest.raises(WalnutError, match="needs images"):
        d.blurred(3).update(torch.zeros(2, 5), ())
