"""Every representation keeps every promise."""

import pytest

from walnut.checks import check_representation
from walnut.weights import Codebook, Grid, Mask

PARTS = {
    "mask": Mask(0.3),
    "mask-of-all": Mask(1.0),
    "codebook-1-bit": Codebook(1),
    "codebook-4-bits": Codebook(4),
    "grid-of-3": Grid(1),
    "grid-of-15": Grid(7),
    "grid-by-output": Grid(3, (0,)),
    "grid-by-input": Grid(127, (1,)),
}


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("shape", [(12, 20), (3, 5), (1, 64)])
def test_the_contract(name, shape):
    check_representation(PARTS[name], shape=shape)
