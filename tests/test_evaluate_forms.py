"""Every form a network is shipped in gets a verdict: no crash, and no silent overestimate."""

from __future__ import annotations

from typing import Any

import pytest

from forms_zoo import FORMS, digits, trained
from walnut.evaluate import Verdict, robustness

EPS, EXAMPLES = 0.3, 10  # so far that next to nothing stands: what does is asked thousands of times


@pytest.fixture(scope="module")
def float_verdict() -> Verdict:
    x, y = digits()
    return robustness(trained(), (x[:EXAMPLES], y[:EXAMPLES]), eps=EPS, with_curve=False)


@pytest.mark.parametrize("name", FORMS)
def test_a_form_is_no_more_robust_than_its_network(name: str, float_verdict: Verdict) -> None:
    make: Any = FORMS[name][0]
    x, y = digits()
    found = robustness(
        make(),
        (x[:EXAMPLES], y[:EXAMPLES]),
        eps=EPS,
        twin=trained(),
        with_curve=False,
        batch_size=10,
    )
    assert found.clean.correct >= EXAMPLES - 4
    assert found.entrance.kind in ("direct", "twin")
    close = found.robust.correct <= float_verdict.robust.correct + 1
    assert close or found.flags
    if found.entrance.kind == "twin":
        assert found.entrance.match is not None
        assert found.entrance.match.agreement > 0.8
