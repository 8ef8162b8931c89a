"""Logits that are a sigmoid's, and probabilities that are none, are refused before they are learned
from."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from edgecv.errors import ModelError  # noqa: E402
from edgecv.tasks.binary import BinaryTask  # noqa: E402
from edgecv.tasks.probabilities import cross_entropy  # noqa: E402
from edgecv.tasks.segmentation.loss import of_classes  # noqa: E402

BODY = nn.Linear(3, 4)
SHAPED = {
    "as it is": lambda z: z,
    "a column": lambda z: z[:, 1:2],
    "flat": lambda z: z.flatten(),
    "a map": lambda z: z.reshape(-1, 1, 2, 2).squeeze(1),
    "channels last": lambda z: z.reshape(-1, 2, 2).permute(0, 2, 1).contiguous(),
}


@pytest.mark.parametrize("shape", SHAPED)
def test_a_sigmoid_is_no_logit(shape: str) -> None:
    x = torch.ones(2, 3)
    logits = SHAPED[shape](BODY(x))
    wanted = torch.ones_like(logits)
    assert cross_entropy("loss", logits, wanted, "logits").isfinite()
    p = SHAPED[shape](BODY(x).sigmoid())
    with pytest.raises(ModelError, match="ends in a sigmoid") as e:
        cross_entropy("loss", p, wanted, "logits")
    assert "scores: probabilities" in e.value.hint
    said = cross_entropy("loss", p, wanted, "probabilities")
    assert said.item() == pytest.approx(cross_entropy("loss", logits, wanted, "logits").item())


def test_a_sigmoid_inside_is_none_at_the_end() -> None:
    z = 3 * BODY(torch.ones(2, 3)).sigmoid() - 1
    assert cross_entropy("loss", z, torch.zeros_like(z), "logits").isfinite()


def test_logits_are_no_probabilities() -> None:
    z = torch.tensor([[-2.0], [3.0]])
    with pytest.raises(ModelError, match=r"lie in -2\.\.3, which are no probabilities"):
        BinaryTask("probabilities").loss(z, [0, 1])


def test_maps_of_one_value_a_pixel() -> None:
    maps = torch.randn(2, 4, 4, requires_grad=True)
    assert of_classes(maps, "logit").shape == (2, 2, 4, 4)
    torch.testing.assert_close(of_classes(maps, "logit").softmax(1)[:, 1], maps.sigmoid())
    with pytest.raises(ModelError, match="ends in a sigmoid") as e:
        of_classes(maps.sigmoid(), "logit")
    assert "holds: probability" in e.value.hint
    p = of_classes(maps.sigmoid(), "probability").softmax(1)[:, 1]
    np.testing.assert_allclose(p.detach(), maps.sigmoid().detach(), atol=1e-5)
