"""Every representation keeps every promise."""

import pytest

from walnut.checks import check_representation
from walnut.weights import Codebook, Grid, Mask
from walnut.weights.binary import Binary, StochasticBinary, unit
from walnut.weights.calibrate import entropy, min_max, percentile
from walnut.weights.lsq import LearnedStep
from walnut.weights.quantised import Quantise, bfloat, half, per_channel, per_tensor
from walnut.weights.ternary import LearnedTernary, Ternary

PARTS = {
    "mask": Mask(0.3),
    "mask-of-all": Mask(1.0),
    "codebook-1-bit": Codebook(1),
    "codebook-4-bits": Codebook(4),
    "quantise-8-bits": Quantise(8),
    "quantise-4-bits-per-tensor": Quantise(4, per_tensor(), min_max()),
    "quantise-4-bits-by-input": Quantise(4, per_channel(1), percentile(0.99)),
    "quantise-2-bits-entropy": Quantise(2, reach=entropy()),
    "half": half(),
    "bfloat": bfloat(),
    "learned-step": LearnedStep(4),
    "learned-step-per-channel": LearnedStep(3, per_channel()),
    "binary": Binary(),
    "binary-unit": Binary(unit()),
    "stochastic-binary": StochasticBinary(),
    "ternary": Ternary(),
    "ternary-per-channel": Ternary(along=per_channel()),
    "learned-ternary": LearnedTernary(),
    "grid-of-3": Grid(1),
    "grid-of-15": Grid(7),
    "grid-by-output": Grid(3, (0,)),
    "grid-by-input": Grid(127, (1,)),
}


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("shape", [(12, 20), (3, 5), (1, 64)])
def test_the_contract(name, shape):
    check_representation(PARTS[name], shape=shape)
