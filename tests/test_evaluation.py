"""One pass over a set, and the evaluator whose metrics read what the pass gave."""

import gc
import weakref

import pytest
import torch
from support.small_training import Batches, small
from torch import nn

from nc_tools._support.by_content import ByContent
from nc_tools.data import ImageSet
from nc_tools.evaluation.collect import collect
from nc_tools.evaluation.evaluator import EvaluationSet, Evaluator
from nc_tools.heads import ETFHead, LinearHead
from nc_tools.metrics import calibration, memorization, neural_collapse
from nc_tools.models.classifier import Classifier
from nc_tools.records import Batch


def test_a_set_is_collected_in_its_order_without_dropout_or_batch_statistics():
    model = small(dropout=0.9).train()
    model.backbone[2].eval()  # a part that somebody froze stays as it was
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    batches = list(Batches().epoch(0))
    collected = collect(model, batches)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    model.eval()
    with torch.no_grad():
        expected = torch.cat([model(batch.inputs) for batch in batches])
    assert torch.equal(collected.logits, expected)
    assert torch.equal(collected.labels, torch.cat([batch.labels for batch in batches]))
    assert not collected.logits.requires_grad


def test_the_model_is_put_back_when_a_batch_fails():
    model = small().train()

    def broken():
        yield next(Batches().epoch(0))
        raise OSError("the disk went")

    with pytest.raises(OSError, match="the disk went"):
        collect(model, broken())
    assert all(module.training for module in model.modules())


def test_an_empty_set_is_an_error():
    with pytest.raises(ValueError, match="cannot evaluate an empty data set"):
        collect(small(), [])


def test_bfloat16_arithmetic_gives_float32_logits():
    collected = collect(small(), Batches().epoch(0), dtype=torch.bfloat16)
    assert collected.logits.dtype == collected.features.dtype == collected.embedded.dtype == torch.float32
    plain = collect(small(), Batches().epoch(0))
    assert not torch.equal(collected.features, plain.features)
    torch.testing.assert_close(collected.features, plain.features, rtol=0.05, atol=0.05)


def test_collecting_leaves_autograd_as_it_was():
    model = nn.Sequential()
    assert torch.is_grad_enabled()
    with pytest.raises(ValueError, match="at least one"):
        collect(small(), iter(model))
    assert torch.is_grad_enabled()


# The evaluator


class Passes:
    """Batches of image sets, with a list of the sets that were passed through a model."""

    def __init__(self):
        self.made = []

    def __call__(self, images, indices=None):
        self.made.append((images, indices))
        chosen = torch.arange(len(images)) if indices is None else indices
        for part in chosen.split(10):
            yield Batch(images.images[part].float() / 255, images.labels[part], part)


def images_of(seed, count=24, noisy=False):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, 1, 3, 3), generator=generator, dtype=torch.uint8)
    clean = torch.arange(count) % 3
    labels = clean.clone()
    if noisy:
        labels[::4] = (labels[::4] + 1) % 3
    return ImageSet(pixels, labels, ("a", "b", "c"), "set", clean_labels=clean if noisy else None)


def evaluator_of(model=None, **more):
    passes = Passes()
    return Evaluator(model or small(), passes, class_counts=(8, 8, 8), dtype=torch.float32, **more), passes


def test_metrics_of_a_set_share_one_pass():
    evaluator, passes = evaluator_of()
    test = EvaluationSet("test", images_of(0))
    values = evaluator.accuracy(test) | evaluator.collapse(test) | evaluator.calibration(test, 2.0, "cal_ts")
    assert len(passes.made) == 1
    assert evaluator.outputs(test) is evaluator.outputs(EvaluationSet("same images", test.images))
    evaluator.outputs(EvaluationSet("some", test.images, torch.arange(5)))
    assert len(passes.made) == 2
    assert {key.rpartition("/")[0] for key in values} == {"test/gen", "test/cal", "test/nc", "test/cal_ts"}


def test_models_with_the_same_features_share_measures_of_them(monkeypatch):
    import nc_tools.evaluation.evaluator as module

    computed = []
    plain = module.further_collapse
    monkeypatch.setattr(module, "further_collapse", lambda *args: computed.append(1) or plain(*args))
    parts = EvaluationSet("train", images_of(0)), EvaluationSet("test", images_of(1))
    far = {"far": EvaluationSet("far", images_of(2))}
    kept, values, expected = ByContent(), [], []
    for seed in (0, 1, 2):
        torch.manual_seed(7)
        backbone = nn.Sequential(nn.Flatten(), nn.Linear(9, 4))  # the same for all
        if seed == 2:
            backbone[1].weight.data[0] *= 2
        torch.manual_seed(seed)
        model = Classifier(backbone, LinearHead(4, 3)).eval()
        for results, options in ((values, {"kept_results": kept}), (expected, {})):
            evaluator, _ = evaluator_of(model, **options)
            results.append(evaluator.further_measures(*parts) | evaluator.ood(*parts, far))
    assert values == expected
    assert values[0]["test/nc/vci"] == values[1]["test/nc/vci"] != values[2]["test/nc/vci"]
    assert values[0]["test/ood/far/knn/auroc"] == values[1]["test/ood/far/knn/auroc"]
    assert values[0]["test/nc/nc3_uniform"] != values[1]["test/nc/nc3_uniform"]
    assert len(computed) == 3 * 2 + 2 * 2, "without sharing for three models, with it for two of them"


@pytest.mark.slow
def test_outputs_are_kept_until_they_are_released_and_those_needed_once_are_not():
    evaluator, passes = evaluator_of()
    test = EvaluationSet("test", images_of(0))
    once = weakref.ref(evaluator.collect(test.images))
    kept = weakref.ref(evaluator.outputs(test))
    gc.collect()
    assert once() is None
    assert kept() is not None
    evaluator.release()
    gc.collect()
    assert kept() is None
    evaluator.outputs(test)
    assert len(passes.made) == 3


def test_two_sets_that_lived_one_after_the_other_are_not_confused():
    evaluator, _ = evaluator_of()
    for seed in range(20):  # an id of a set that is gone may be given to the next one
        part = EvaluationSet("test", images_of(seed))
        assert torch.equal(evaluator.outputs(part).logits, evaluator.collect(part.images).logits)


def test_accuracy_and_calibration_have_the_sets_name():
    evaluator, _ = evaluator_of()
    test = EvaluationSet("test", images_of(0))
    outputs, values = evaluator.outputs(test), evaluator.accuracy(test)
    assert values["test/gen/accuracy"] == float((outputs.logits.argmax(1) == outputs.labels).double().mean())
    assert {key.split("/")[1] for key in values} == {"gen", "cal"}
    scaled = calibration(outputs.logits / 3.0, outputs.labels)
    assert evaluator.calibration(test, 3.0, "cal_ts") == {f"test/cal_ts/{k}": v for k, v in scaled.items()}


def test_class_vectors_are_compared_with_features_only_where_they_have_one_width():
    train = EvaluationSet("train", images_of(0))
    plain = evaluator_of(small(LinearHead(6, 3)))[0].collapse(train)
    assert "train/nc/nc3_cosine" in plain
    assert not any(key.startswith("train/nc_embedded/") for key in plain)
    projected = evaluator_of(small(ETFHead(6, 3, projection=4)))[0].collapse(train)
    assert "train/nc/nc3_cosine" not in projected
    assert "train/nc_embedded/nc3_cosine" in projected
    assert "train/nc/nc1_pinv" in projected


def test_a_set_with_noisy_labels_is_measured_under_both():
    evaluator, passes = evaluator_of()
    part = EvaluationSet("train", images_of(1, noisy=True), torch.arange(20))
    outputs, clean = evaluator.outputs(part), part.images.clean_labels[:20]
    assert torch.equal(part.clean_labels, clean)
    given, true = evaluator.accuracy(part) | evaluator.collapse(part), evaluator.clean_label_metrics(part)
    expected = {key.replace("/", "_clean/", 2).replace("_clean/", "/", 1) for key in given}
    assert true.keys() == expected
    assert true["train/gen_clean/accuracy"] == float((outputs.logits.argmax(1) == clean).double().mean())
    noise = evaluator.label_noise(part)
    assert noise["train/noise/rate"] == 0.25
    dilation = neural_collapse(outputs.features, clean, num_classes=3)["nc1_trace"]
    assert noise["train/noise/dilation"] == dilation
    moved = memorization(outputs.features, outputs.logits, outputs.labels, clean)
    assert {f"train/noise/{key}": value for key, value in moved.items()}.items() <= noise.items()
    assert len(passes.made) == 1


def test_a_set_without_true_labels_has_no_metrics_of_noise():
    evaluator, passes = evaluator_of()
    part = EvaluationSet("train", images_of(0))
    assert part.clean_labels is None
    assert evaluator.label_noise(part) == evaluator.clean_label_metrics(part) == {}
    assert passes.made == []
