"""One rule for labels in all losses: any integer type, -100 for samples that do not count, tokens, pixels, weights."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from support.loss_variants import COUNTS, VARIANTS, D, K, batch_of, build, every_loss, outputs_for, variant_name
from torch import Tensor

from nc_tools import losses
from nc_tools.heads import ETFHead, LinearHead
from nc_tools.losses import LossTerm, PerSampleLoss
from nc_tools.records import Batch, Outputs
from nc_tools.specs import Spec, spec

N = 12
LABELS = torch.arange(N) % K
DROPPED = torch.tensor([0, 5, 6, 11])
KEPT = torch.tensor([i for i in range(N) if i not in DROPPED])
WITH_IGNORED = LABELS.index_fill(0, DROPPED, -100)
FEATURES = torch.randn(N, D, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=["cpu", "as on a GPU"])
def device(request, monkeypatch):
    """On a GPU no value is read, and all is done with masks."""
    if request.param != "cpu":
        monkeypatch.setattr("nc_tools.losses._rows.traced", lambda: True)


def rows_of_outputs(loss: LossTerm, head: torch.nn.Module, h: Tensor, rows: Tensor) -> Outputs:
    """The outputs of some rows of h; outliers are those of all rows."""
    whole, part = outputs_for(loss, head, h), head.outputs(h[rows])
    part.outliers = whole.outliers
    if whole.second_view is not None:
        part.second_view = head.outputs(whole.second_view.features[rows])
    return part


def step(loss: LossTerm, outputs: Callable[[Tensor], Outputs], batch: Batch) -> tuple[Tensor, Tensor]:
    h = FEATURES.clone().requires_grad_()
    value = loss(outputs(h), batch)
    (gradient,) = torch.autograd.grad(value, h, allow_unused=True)
    return value.detach(), torch.zeros_like(h) if gradient is None else gradient


@pytest.mark.usefixtures("device")
@every_loss
def test_a_sample_with_the_label_minus_100_does_not_count(loss_spec: Spec[LossTerm]) -> None:
    one, other, head = build(loss_spec), build(loss_spec), LinearHead(D, K)
    index = torch.arange(N)
    whole = Batch(torch.zeros(N, 1), WITH_IGNORED, index)
    part = Batch(torch.zeros(len(KEPT), 1), LABELS[KEPT], index[KEPT])
    for _ in range(2):  # the second step reads the state that the first has left
        value, gradient = step(one, lambda h: outputs_for(one, head, h), whole)
        expected, of_part = step(other, lambda h: rows_of_outputs(other, head, h, KEPT), part)
        assert torch.allclose(value, expected, atol=1e-6)
        assert torch.allclose(gradient, of_part, atol=1e-6)
    for name, state in one.state_dict().items():
        assert torch.allclose(state, other.state_dict()[name], atol=1e-6), name


@pytest.mark.usefixtures("device")
@every_loss
def test_if_no_sample_counts_the_loss_and_its_gradients_are_zero(loss_spec: Spec[LossTerm]) -> None:
    loss, head = build(loss_spec), LinearHead(D, K)
    before = {name: value.clone() for name, value in loss.state_dict().items()}
    h = FEATURES.clone().requires_grad_()
    value = loss(outputs_for(loss, head, h), batch_of(torch.full((N,), -100)))
    assert torch.isfinite(value)
    if not loss.needs_outliers:  # outliers have no labels
        assert float(value.detach()) == 0
    value.backward()
    parameters = [h, *head.parameters(), *loss.parameters()]
    if not loss.needs_outliers:
        assert all(p.grad is None or not p.grad.any() for p in parameters)
    assert all(torch.equal(state, before[name]) for name, state in loss.state_dict().items())


@every_loss
@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.int8, torch.uint8])
def test_labels_of_any_integer_type_give_the_same(loss_spec: Spec[LossTerm], dtype: torch.dtype) -> None:
    head = LinearHead(D, K)
    labels = LABELS if dtype == torch.uint8 else WITH_IGNORED
    results = []
    for given in (labels, labels.to(dtype)):
        loss = build(loss_spec)
        results.append(step(loss, lambda h, loss=loss: outputs_for(loss, head, h), batch_of(given)))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@every_loss
def test_another_ignore_index_and_a_mask_of_ones_own(loss_spec: Spec[LossTerm]) -> None:
    head = LinearHead(D, K)
    ways = {
        "-100": (batch_of(WITH_IGNORED), {}),
        "255": (batch_of(torch.where(WITH_IGNORED < 0, 255, WITH_IGNORED).to(torch.uint8)), {"ignore_index": 255}),
        "a class": (batch_of(torch.where(WITH_IGNORED < 0, 0, WITH_IGNORED)), {"ignore_index": 0}),
        "kept": (replace(batch_of(LABELS), kept=WITH_IGNORED >= 0), {}),
    }
    values = {}
    for name, (batch, options) in ways.items():
        loss = build(loss_spec)
        values[name] = loss(outputs_for(loss, head, FEATURES), batch, **options).detach()
    assert torch.allclose(values["255"], values["-100"])
    assert torch.allclose(values["kept"], values["-100"])
    without_class_0 = build(loss_spec)
    batch = batch_of(torch.where((WITH_IGNORED < 0) | (WITH_IGNORED == 0), -100, WITH_IGNORED))
    expected = without_class_0(outputs_for(without_class_0, head, FEATURES), batch)
    assert torch.allclose(values["a class"], expected)


@every_loss
@pytest.mark.parametrize("wrong", [K, -1, 1000])
def test_a_label_beyond_the_classes_is_named(loss_spec: Spec[LossTerm], wrong: int) -> None:
    loss, head = build(loss_spec), ETFHead(D, K)
    labels = WITH_IGNORED.index_fill(0, torch.tensor([3]), wrong)
    with pytest.raises(
        ValueError, match=rf"class indices from 0 to 3, or -100 for samples that do not count, got {wrong}"
    ):
        loss(outputs_for(loss, head, FEATURES), batch_of(labels))


OF_SAMPLES = [s for s in VARIANTS if issubclass(s.cls, PerSampleLoss)]
of_samples = pytest.mark.parametrize("loss_spec", OF_SAMPLES, ids=variant_name)


@pytest.mark.usefixtures("device")
@of_samples
def test_the_mean_of_the_samples_is_the_loss_and_none_keeps_the_places(loss_spec: Spec[LossTerm]) -> None:
    loss, head = build(loss_spec), LinearHead(D, K)
    outputs, batch = outputs_for(loss, head, FEATURES), batch_of(WITH_IGNORED)
    each, placed = loss.per_sample(outputs, batch), loss(outputs, batch, reduction="none")
    assert each.shape == (len(KEPT),)
    assert placed.shape == (N,)
    assert torch.equal(placed[KEPT], each)
    assert not placed[DROPPED].any()
    assert torch.allclose(loss(outputs, batch, reduction="sum"), each.sum(), atol=1e-6)
    if loss_spec.arguments.get("mean_over") != "classes":
        assert torch.allclose(each.mean(), loss(outputs, batch), rtol=1e-5)


@pytest.mark.usefixtures("device")
@of_samples
@torch.no_grad()
def test_weights_of_samples_and_classes(loss_spec: Spec[LossTerm]) -> None:
    loss, head = build(loss_spec), LinearHead(D, K)
    outputs, batch = outputs_for(loss, head, FEATURES), batch_of(WITH_IGNORED)
    of_sample, of_class = torch.rand(N) + 0.1, torch.tensor([0.5, 2.0, 0.0, 1.0])
    plain = loss(outputs, batch, reduction="none").detach()
    for options, weights in (
        ({"sample_weight": of_sample}, of_sample),
        ({"class_weight": of_class}, of_class[LABELS]),
        ({"sample_weight": of_sample, "class_weight": of_class}, of_sample * of_class[LABELS]),
    ):
        total, norm = 0.0, 0.0
        for i in KEPT.tolist():
            total += float(weights[i] * plain[i])
            norm += float(weights[i])
        assert float(loss(outputs, batch, **options)) == pytest.approx(total / norm, rel=1e-5, abs=1e-6)
        assert float(loss(outputs, batch, reduction="sum", **options)) == pytest.approx(total, rel=1e-5, abs=1e-6)
        assert torch.allclose(loss(outputs, batch, reduction="none", **options), weights * plain)
    assert float(loss(outputs, batch, sample_weight=torch.zeros(N))) == 0


@pytest.mark.parametrize("labels", [WITH_IGNORED, torch.rand(N, K).softmax(1)], ids=["classes", "probabilities"])
def test_sums_and_class_weighted_losses_take_weights_reductions_and_probabilities(labels: Tensor) -> None:
    z, of_sample, of_class = torch.randn(N, K), torch.rand(N) + 0.1, torch.tensor([0.5, 2.0, 0.0, 1.0])
    parts = (losses.LogitAdjustedLoss(COUNTS), losses.MeanSquaredLoss())
    inner = losses.WeightedSumLoss([losses.term(0.25, parts[1])])
    total = losses.WeightedSumLoss([losses.term(2.0, parts[0]), losses.term(1.0, inner)])
    balanced = losses.ClassBalancedLoss(COUNTS, loss=parts[0])
    late = losses.DeferredReweightingLoss(COUNTS, loss=parts[0])
    late.set_progress(0.9)
    for options in (
        {}, {"sample_weight": of_sample}, {"class_weight": of_class}, {"reduction": "none"}, {"reduction": "sum"},
        {"sample_weight": of_sample, "class_weight": of_class, "reduction": "none"},
    ):  # fmt: skip
        expected = 2 * parts[0](z, labels, **options) + 0.25 * parts[1](z, labels, **options)
        assert torch.allclose(total(z, labels, **options), expected, atol=1e-6)
        weights = balanced.weight * options.get("class_weight", 1)
        expected = parts[0](z, labels, **{**options, "class_weight": weights})
        assert torch.allclose(balanced(z, labels, **options), expected, atol=1e-6)
        assert torch.allclose(late(z, labels, **options), expected, atol=1e-6)
        if labels.ndim == 1:
            outputs = outputs_for(total, LinearHead(K, K), z)
            batch = batch_of(labels)
            assert torch.allclose(total(outputs, batch, **options), total(outputs.logits, labels, **options), atol=1e-6)
            given = balanced(outputs, batch, **options)
            assert torch.allclose(given, balanced(outputs.logits, labels, **options), atol=1e-6)


def test_sums_and_class_weighted_losses_say_what_a_part_does_not_take() -> None:
    z, soft = torch.randn(N, K), torch.rand(N, K).softmax(1)
    mixed = losses.WeightedSumLoss([losses.term(1.0, losses.CrossEntropyLoss()), losses.term(1.0, OnlyLogits())])
    with pytest.raises(
        TypeError, match=r"need a value for each sample, got OnlyLogits\. Call the sum without them, or"
    ):
        mixed(z, LABELS, sample_weight=torch.ones(N))
    assert torch.isfinite(mixed(z, LABELS))
    with pytest.raises(TypeError, match="OnlyLogits is defined for class indices only, got probabilities of shape"):
        mixed(z, soft)
    assert torch.isfinite(mixed(z, soft.argmax(-1)))
    with pytest.raises(TypeError, match="FocalLoss is defined for class indices only"):
        losses.ClassBalancedLoss(COUNTS, loss=losses.FocalLoss())(z, soft)
    for options, message in (
        ({"class_weight": torch.ones(3)}, r"class_weight must have the shape \(4,\), got \(3,\)"),
        ({"sample_weight": torch.ones(3)}, r"sample_weight must have the shape of the labels, \(12,\), got \(3,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            losses.ClassBalancedLoss(COUNTS)(z, LABELS, **options)
    with pytest.raises(ValueError, match="the class weights are of 4 classes, but the logits have 3"):
        losses.ClassBalancedLoss(COUNTS)(z[:, :3], LABELS % 3, reduction="none")


def test_weights_and_reductions_are_those_of_pytorch() -> None:
    z, weight = torch.randn(N, K), torch.tensor([0.5, 2.0, 0.1, 1.0])
    for smoothing in (0.0, 0.2):
        loss = losses.CrossEntropyLoss(smoothing)
        for labels in (LABELS, WITH_IGNORED):
            for reduction in ("mean", "sum", "none"):
                expected = F.cross_entropy(z, labels, reduction=reduction, label_smoothing=smoothing)
                assert torch.allclose(loss(z, labels, reduction=reduction), expected, atol=1e-6)
        for reduction in ("mean", "sum", "none"):  # with smoothing PyTorch weights every class of a sample
            expected = F.cross_entropy(z, WITH_IGNORED, weight=weight, reduction=reduction)
            given = losses.CrossEntropyLoss()(z, WITH_IGNORED, class_weight=weight, reduction=reduction)
            assert torch.allclose(given, expected, atol=1e-6)


def test_weights_that_do_not_fit() -> None:
    loss, z = losses.FocalLoss(), torch.zeros(N, K)
    with pytest.raises(ValueError, match=r"sample_weight must have the shape of the labels, \(12,\), got \(3,\)"):
        loss(z, LABELS, sample_weight=torch.ones(3))
    with pytest.raises(ValueError, match=r"class_weight must have the shape \(4,\), got \(3,\)"):
        loss(z, LABELS, class_weight=torch.ones(3))
    with pytest.raises(ValueError, match="reduction must be 'none', 'mean' or 'sum', got 'median'"):
        loss(z, LABELS, reduction="median")
    with pytest.raises(TypeError, match="unexpected keyword argument 'sample_weight'"):
        losses.SupConLoss()(z, LABELS, sample_weight=torch.ones(N))


LOGIT_LOSSES = [s for s in VARIANTS if issubclass(s.cls, losses.LogitLoss)]


@pytest.mark.parametrize("loss_spec", LOGIT_LOSSES, ids=variant_name)
def test_tokens_and_pixels_are_rows(loss_spec: Spec[LossTerm]) -> None:
    loss = build(loss_spec)
    tokens, labels = torch.randn(2, 6, K), WITH_IGNORED.view(2, 6)
    flat = loss(tokens.view(-1, K), WITH_IGNORED)
    assert torch.equal(loss(tokens, labels), flat)
    pixels = tokens.view(2, 2, 3, K).movedim(3, 1)
    assert pixels.shape == (2, K, 2, 3)
    assert torch.equal(loss(pixels, labels.view(2, 2, 3)), flat)
    placed = loss(pixels, labels.view(2, 2, 3), reduction="none")
    assert placed.shape == (2, 2, 3)
    assert torch.equal(placed.flatten(), loss(tokens.view(-1, K), WITH_IGNORED, reduction="none"))
    weights = torch.rand(2, 6)
    assert torch.equal(
        loss(tokens, labels, sample_weight=weights),
        loss(tokens.view(-1, K), WITH_IGNORED, sample_weight=weights.flatten()),
    )


def test_forms_that_are_not_understood() -> None:
    loss = losses.FocalLoss()
    for z, labels, message in (
        (torch.zeros(2, K, 3), torch.zeros(2, 3).long(), r"\(2, 4, 3\) must have the shape \(2, 4\), got \(2, 3\)"),
        (torch.zeros(2, 3, 3, K), torch.zeros(2, 3, 3).long(), r"must have the shape \(2, 3, 4\), got \(2, 3, 3\)"),
        (torch.zeros(K), torch.zeros(()).long(), r"logits must have the shape \(N, K\), \(N, T, K\) for tokens"),
        (torch.zeros(2, 1, 1, 1, K), torch.zeros(2).long(), r"logits must have the shape \(N, K\)"),
    ):
        with pytest.raises(ValueError, match=message):
            loss(z, labels)


SOFT: list[Spec[LossTerm]] = [
    spec(losses.CrossEntropyLoss),
    spec(losses.CrossEntropyLoss, label_smoothing=0.2),
    spec(losses.CrossEntropyLoss, label_smoothing=losses.ClassWiseSmoothing(0.4, 0.1)),
    spec(losses.LogitAdjustedLoss),
    spec(losses.BalancedSoftmaxLoss),
    spec(losses.VectorScalingLoss),
    spec(losses.ClassAffineCrossEntropyLoss, shift=torch.arange(4.0)),
    spec(losses.BinaryCrossEntropyLoss, initial_threshold=0.3),
    spec(losses.MeanSquaredLoss, kappa=3.0, target=2.0),
    spec(losses.BackgroundCrossEntropyLoss),
    spec(losses.LogitNormLoss),
    spec(losses.ForwardCorrectionLoss, transition=0.7 * torch.eye(4) + 0.3 / 4),
]


@pytest.mark.parametrize("loss_spec", SOFT, ids=variant_name)
def test_the_loss_of_probabilities_is_that_of_the_classes_in_their_shares(loss_spec: Spec[LossTerm]) -> None:
    """All of these are linear in the label, up to the smoothing by class, which is that of the mean."""
    loss, z = build(loss_spec).double(), torch.randn(N, K, dtype=torch.float64)
    targets = torch.rand(N, K, dtype=torch.float64).softmax(1)
    by_class = torch.stack([loss.per_sample(z, torch.full((N,), k)) for k in range(K)], dim=1)
    if not isinstance(loss_spec.arguments.get("label_smoothing"), losses.ClassWiseSmoothing):
        assert torch.allclose(loss.per_sample(z, targets), (targets * by_class).sum(1))
    one_hot = F.one_hot(LABELS, K).double()
    assert torch.allclose(loss(z, one_hot), loss(z, LABELS))
    tokens = z.view(2, 6, K)
    assert torch.allclose(loss(tokens, targets.view(2, 6, K), reduction="none").flatten(), loss.per_sample(z, targets))


def test_probabilities_are_treated_as_in_pytorch() -> None:
    z, targets = torch.randn(N, K), torch.rand(N, K).softmax(1)
    for smoothing in (0.0, 0.2):
        expected = F.cross_entropy(z, targets, label_smoothing=smoothing)
        assert torch.allclose(losses.CrossEntropyLoss(smoothing)(z, targets), expected, atol=1e-6)
    saturated = torch.tensor([[0.0, -torch.inf, 0.0, 0.0]])
    assert torch.isfinite(losses.CrossEntropyLoss()(saturated, torch.tensor([[0.5, 0.0, 0.5, 0.0]])))


@pytest.mark.parametrize("loss_spec", LOGIT_LOSSES, ids=variant_name)
def test_a_loss_takes_probabilities_or_says_that_it_does_not(loss_spec: Spec[LossTerm]) -> None:
    loss, targets = build(loss_spec), torch.rand(N, K).softmax(1)
    if loss_spec.cls in {s.cls for s in SOFT}:
        assert torch.isfinite(loss(torch.zeros(N, K), targets))
    else:
        with pytest.raises(TypeError, match=r"is defined for class indices only, got probabilities of shape \(12, 4\)"):
            loss(torch.zeros(N, K), targets)


FREE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "smoothed_cross_entropy": lambda z, y: losses.smoothed_cross_entropy(z, y, 0.1),
    "plain smoothed_cross_entropy": losses.smoothed_cross_entropy,
    "focal_loss": losses.focal_loss,
    "label_relaxation": losses.label_relaxation,
    "generalized_cross_entropy": losses.generalized_cross_entropy,
    "normalized_cross_entropy": losses.normalized_cross_entropy,
    "mean_absolute_error": losses.mean_absolute_error,
    "logit_norm": losses.logit_norm,
    "mean_squared": lambda z, y: losses.mean_squared(z, y, 2.0),
    "binary_cross_entropy": losses.binary_cross_entropy,
    "affine_cross_entropy": lambda z, y: losses.affine_cross_entropy(z, y, margin=torch.ones(K)),
    "supervised_contrastive": losses.supervised_contrastive,
    "balanced_supervised_contrastive": lambda z, y: losses.balanced_supervised_contrastive(z, y, torch.eye(K)),
    "class_conditional_info_nce": lambda z, y: losses.class_conditional_info_nce(z, z + 0.1, y),
    "class_attraction": lambda z, y: losses.class_attraction(z, z + 0.1, y),
    "ntce": lambda z, y: losses.ntce(z, torch.eye(K), y),
    "nonl": lambda z, y: losses.nonl(z, torch.eye(K), y),
    "forward_corrected": lambda z, y: losses.forward_corrected(z, y, (0.7 * torch.eye(K) + 0.3 / K).log()),
}


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("function", FREE.values(), ids=FREE)
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_functions_follow_the_same_rule(function: Callable[[Tensor, Tensor], Tensor], dtype: torch.dtype) -> None:
    z = torch.randn(N, K)
    values = function(z, WITH_IGNORED.to(dtype))
    assert torch.allclose(values[KEPT], function(z[KEPT], LABELS[KEPT]), atol=1e-6)
    assert not values[DROPPED].any()


def test_functions_have_the_reductions_of_pytorch() -> None:
    z = torch.randn(N, K)
    for reduction in ("none", "mean", "sum"):
        expected = F.cross_entropy(z, WITH_IGNORED, label_smoothing=0.1, reduction=reduction)
        assert torch.allclose(losses.smoothed_cross_entropy(z, WITH_IGNORED, 0.1, reduction), expected, atol=1e-6)
    assert torch.allclose(losses.focal_loss(z, WITH_IGNORED, 0.0, "mean"), F.cross_entropy(z, WITH_IGNORED))
    shifted = F.cross_entropy(z + torch.tensor(COUNTS).log(), WITH_IGNORED)
    assert torch.allclose(losses.logit_adjusted_cross_entropy(z, WITH_IGNORED.int(), COUNTS), shifted)


@pytest.mark.usefixtures("device")
def test_functions_of_a_whole_batch_follow_the_same_rule() -> None:
    z, centers = torch.randn(N, D), torch.randn(K, D)
    for function in (losses.coding_rate_gain, lambda h, y: losses.class_compactness(h, y, centers)):
        assert torch.allclose(function(z, WITH_IGNORED), function(z[KEPT], LABELS[KEPT]), atol=1e-6)


class OnlyLogits(LossTerm):
    """A loss of one's own that is no mean over samples."""

    def compute(self, outputs: Outputs, batch: Batch) -> Tensor:
        return self.from_logits(outputs.logits, batch.labels)

    def from_logits(self, logits: Tensor, labels: Tensor) -> Tensor:
        return logits.gather(1, labels[:, None]).square().mean().sqrt()


def test_a_loss_of_ones_own_gets_the_rows_that_count() -> None:
    z = torch.randn(N, K)
    assert torch.equal(OnlyLogits()(z, WITH_IGNORED), OnlyLogits()(z[KEPT], LABELS[KEPT]))
    total = losses.WeightedSumLoss([losses.term(2.0, OnlyLogits()), losses.term(1.0, losses.FocalLoss())])
    assert torch.allclose(total(z, WITH_IGNORED), total(z[KEPT], LABELS[KEPT]))


def test_class_weights_with_ignored_samples_are_those_of_pytorch() -> None:
    z, loss = torch.randn(N, K), losses.ClassBalancedLoss(COUNTS)
    expected = F.cross_entropy(z, WITH_IGNORED, weight=loss.weight)
    assert torch.allclose(loss(z, WITH_IGNORED), expected)


@pytest.mark.slow
@every_loss
def test_ignored_samples_compile_without_a_graph_break(loss_spec: Spec[LossTerm]) -> None:
    loss, head, batch = build(loss_spec).eval(), ETFHead(D, K), batch_of(WITH_IGNORED)

    def compiled_step(x: Tensor) -> Tensor:
        return loss(outputs_for(loss, head, x), batch)  # type: ignore[no-any-return]

    torch._dynamo.reset()
    compiled = torch.compile(compiled_step, fullgraph=True, backend="eager")
    assert torch.allclose(compiled(FEATURES), compiled_step(FEATURES), atol=1e-5)
