"""Features of two networks find each other, and adapters are nobody's part."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from edgecv.errors import StageError  # noqa: E402
from edgecv.methods.distillation import losses  # noqa: E402
from edgecv.methods.distillation.distill_loss import DistillLoss  # noqa: E402
from edgecv.methods.distillation.features import Features, Weights, found, shapes  # noqa: E402
from edgecv.methods.distillation.teacher import Translated  # noqa: E402
from edgecv.models import zoo  # noqa: E402
from tests import networks as nets  # noqa: E402

X = torch.randn(4, 3, nets.SIZE, nets.SIZE, generator=torch.Generator().manual_seed(0))
HINTS = Weights(hints=1.0)


def net(name: str, width: int) -> nn.Module:
    return nets.seeded(lambda: zoo.build(name, width=width, classes=nets.CLASSES)).eval()


def features(student: nn.Module, teacher: nn.Module, weights: Weights = HINTS, **named) -> Features:
    return Features(student, teacher, X, weights, named.get("pairs", {}), "small")


def test_stages_of_two_depths_end_together() -> None:
    pairs = features(net("resnet8", 8), net("resnet20", 16)).pairs
    assert [a for a, _ in pairs] == ["stage1", "stage2", "stage3", "head.input"]
    sizes = [shapes(net("resnet8", 8), X)[a][2:] for a, _ in pairs]
    assert sizes == [shapes(net("resnet20", 16), X)[b][2:] for _, b in pairs]
    assert len(set(sizes)) == len(sizes) >= 3


def test_a_layer_of_the_same_name_goes_before_the_last_of_its_size() -> None:
    own = {"a": (1, 4, 8, 8), "b": (1, 4, 4, 4), "z": (1, 4)}
    other = {"a": (1, 9, 8, 8), "late": (1, 9, 8, 8), "b": (1, 9, 2, 2), "c": (1, 9, 4, 4)}
    assert found(own, other) == [("a", "a"), ("b", "c")]


def test_what_gives_the_classes_is_no_feature() -> None:
    module = nets.chain(nn.ReLU())
    assert all(shape[1:] != (nets.CLASSES,) for shape in shapes(module, X).values())


def test_networks_of_vectors_pair_their_last_hidden_layers() -> None:
    def mlp(width: int) -> nn.Module:
        return nn.Sequential(
            nn.Flatten(), nn.Linear(3 * nets.SIZE**2, width), nn.ReLU(), nn.Linear(width, 4)
        )

    pairs = features(mlp(8), mlp(12), Weights(relational=1.0))
    assert pairs.pairs == [("3.input", "3.input")]


def test_the_embedding_is_what_the_last_dense_layer_reads() -> None:
    made = features(net("resnet8", 8), net("resnet20", 16), Weights(relational=1.0))
    assert made.pairs[-1] == ("head.input", "head.input")
    with made.reading() as (own, _):
        made.student(X)
    embedding = made.student.stage3(made.student.stage2(made.student.stage1(made.student.stem(X))))
    torch.testing.assert_close(own["head.input"], embedding.mean((2, 3)))


def test_a_translated_teacher_keeps_its_names() -> None:
    plain = net("resnet20", 16)
    behind = Translated(plain, None, [1, 0, 2, 3])
    made = features(net("resnet8", 8), behind)
    assert made.pairs == features(net("resnet8", 8), plain).pairs
    with made.reading() as (_, other):
        behind(X)
    assert set(other) == {b for _, b in made.pairs}


def test_named_pairs_are_taken_as_they_are() -> None:
    student, teacher = net("resnet8", 8), net("resnet20", 16)
    made = features(student, teacher, pairs={"stage1": "stage3"})
    assert made.pairs == [("stage1", "stage3")]
    with made.reading() as (own, other):
        student(X)
        teacher(X)
    assert float(made.loss(own, other).detach()) > 0  # at the smaller size


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        ({"stag1": "stage1"}, r"small: the student has no layer 'stag1' .*did you mean 'stage1'"),
        ({"stage1": "stage9"}, r"small: the teacher has no layer 'stage9' .*did you mean 'stage"),
    ],
)
def test_a_layer_that_is_not_there_is_an_error(pairs: dict, said: str) -> None:
    with pytest.raises(StageError, match=said):
        features(net("resnet8", 8), net("resnet8", 8), pairs=pairs)


def test_nothing_in_common_is_an_error() -> None:
    one = nn.Sequential(nets.conv(3, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten(1))
    other = nn.Sequential(nn.Conv2d(3, 4, 5), nn.Flatten(1), nn.Linear(4 * 144, 4))
    with pytest.raises(StageError, match="no features of one size"):
        Features(one, other, X, HINTS, {}, "small")


def test_attention_of_vectors_is_an_error() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * nets.SIZE**2, 8), nn.ReLU(), nn.Linear(8, 4))
    with pytest.raises(StageError, match="attention needs features with height and width"):
        features(module, module, Weights(attention=1.0))


def test_adapters_map_widths_and_only_where_they_differ() -> None:
    wide = features(net("resnet8", 8), net("resnet8", 16))
    assert {type(a) for a in wide.adapters.values()} == {nn.Conv2d, nn.Linear}
    assert all(a.kernel_size == (1, 1) for a in wide.adapters.values() if hasattr(a, "kernel_size"))
    same = features(net("resnet8", 8), net("resnet8", 8))
    assert {type(a) for a in same.adapters.values()} == {nn.Identity}
    assert len(features(net("resnet8", 8), net("resnet8", 16), Weights(similarity=1)).adapters) == 0


def test_adapters_start_from_the_seed_and_draw_from_nobody() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, two = (features(net("resnet8", 8), net("resnet8", 16)) for _ in range(2))
    for a, b in zip(one.adapters.parameters(), two.adapters.parameters(), strict=True):
        assert torch.equal(a, b)
    torch.manual_seed(5)
    features(one.student, one.teacher)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ["hints", "attention", "similarity", "relational"])
def test_a_network_has_nothing_to_learn_from_itself(name: str) -> None:
    module = net("resnet8", 8)
    made = features(module, net("resnet8", 8), Weights(**{name: 1.0}))
    distill_loss = DistillLoss(made.teacher, share=0.0, features=made)
    y = torch.tensor([0, 1, 2, 3])
    alone = DistillLoss().loss(module, X, y, 0.0)
    torch.testing.assert_close(distill_loss.loss(module, X, y, 0.0), alone)


def test_the_loss_is_the_mean_over_pairs() -> None:
    student, teacher = net("resnet8", 8), net("resnet20", 16)
    made = features(student, teacher, Weights(attention=3.0, similarity=2.0))
    with made.reading() as (own, other):
        student(X)
        teacher(X)
    pairs = [(own[a], other[b]) for a, b in made.pairs]
    maps = [losses.attention(x, y) for x, y in pairs if x.ndim == 4]
    alike = [losses.similarity(x, y) for x, y in pairs]
    wanted = 3 * sum(maps) / len(maps) + 2 * sum(alike) / len(alike)
    torch.testing.assert_close(made.loss(own, other), wanted)


def test_no_hook_is_left() -> None:
    student, teacher = net("resnet8", 8), net("resnet20", 16)
    made = features(student, teacher)
    DistillLoss(teacher, features=made).loss(student, X, torch.zeros(4, dtype=torch.long), 0.0)
    hooks = [m._forward_hooks for n in (student, teacher) for m in n.modules()]
    assert not any(hooks)
