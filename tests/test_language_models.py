"""Language models: heads tied to an embedding, logits of every token, packed tokens, large vocabularies."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from nc_tools import measure
from nc_tools.heads import CosineHead, LinearHead
from nc_tools.losses import CrossEntropyLoss, DotRegressionLoss
from nc_tools.metrics import neural_collapse
from nc_tools.records import Batch
from nc_tools.specs import spec
from nc_tools.surgery import swap_head, watch

V, T = 30, 12


class Tied(nn.Module):
    """Embedding, one layer, and the embedding again as the output layer."""

    def __init__(self, vocabulary: int = V, width: int = 8) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.mix = nn.Linear(width, width)
        self.out = nn.Linear(width, vocabulary, bias=False)
        self.out.weight = self.embed.weight

    def hidden(self, ids: Tensor) -> Tensor:
        return self.mix(self.embed(ids)).cumsum(-2).tanh()  # type: ignore[no-any-return]

    def forward(self, ids: Tensor) -> Tensor:
        return self.out(self.hidden(ids))  # type: ignore[no-any-return]


def tokens(rows: int = 6, seed: int = 0) -> Tensor:
    return torch.randint(0, V, (rows, T), generator=torch.Generator().manual_seed(seed))


def next_tokens(ids: Tensor) -> Tensor:
    return pad(ids[:, 1:], (0, 1), value=-100)


def test_a_tied_model_is_measured_on_the_tokens_that_have_a_label() -> None:
    model, ids = Tied(), tokens()
    labels = next_tokens(ids)
    labels[2, :5] = -100
    values = measure(model, [(ids[:4], labels[:4]), (ids[4:], labels[4:])], layers=["mix"], keep_gb=0)
    with torch.no_grad():
        kept = labels != -100
        features, logits, mixed = model.hidden(ids)[kept], model(ids)[kept], model.mix(model.embed(ids))[kept]
    expected = neural_collapse(features, labels[kept], model.out.weight, num_classes=V)
    assert values["accuracy"] == pytest.approx(float((logits.argmax(1) == labels[kept]).float().mean()))
    for key, value in expected.items():
        assert values[f"nc/{key}"] == pytest.approx(value, rel=1e-4, abs=1e-6), key
    layer = neural_collapse(mixed, labels[kept], num_classes=V)
    assert values["layer/mix/nc1_pinv"] == pytest.approx(layer["nc1_pinv"], rel=1e-4)


def test_packed_tokens_have_the_values_of_the_rows() -> None:
    model, ids = Tied(), tokens(4)

    class Packed(nn.Module):
        """One row of all sequences, and where each begins, as for attention without padding."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Tensor, starts: Tensor) -> Tensor:
            parts = [self.model(part) for part in input_ids[0].tensor_split(starts[1:-1])]
            return torch.cat(parts)[None]

    # The output layer runs once for each sequence: the rows are the last call's, so the message asks for another layer.
    packed = {"input_ids": ids.flatten()[None], "starts": torch.arange(5) * T}
    labels = next_tokens(ids)
    with pytest.raises(ValueError, match="no layer of Packed returns the logits"):
        measure(Packed(), [packed | {"labels": labels.flatten()[None]}])

    class Joined(Packed):
        def forward(self, input_ids: Tensor, starts: Tensor) -> Tensor:
            parts = [self.model.hidden(part) for part in input_ids[0].tensor_split(starts[1:-1])]
            return self.model.out(torch.cat(parts)[None])  # type: ignore[no-any-return]

    expected = measure(model, [(ids, labels)])
    values = measure(Joined(), [packed | {"labels": labels.flatten()[None]}])
    assert values == pytest.approx(expected, rel=1e-5)


def test_labels_that_are_the_tokens_themselves_are_refused_and_the_advice_works() -> None:
    model, ids = Tied(), tokens()
    with pytest.raises(ValueError, match=r"the tokens themselves.*pad\(ids\[:, 1:\], \(0, 1\), value=-100"):
        measure(model, [(ids, ids)])
    assert "nc/nc1_pinv" in measure(model, [(ids, torch.nn.functional.pad(ids[:, 1:], (0, 1), value=-100))])


@pytest.mark.parametrize("wrong", [torch.zeros(6, T + 1, dtype=torch.int64), torch.zeros(6, dtype=torch.int64)])
def test_labels_of_another_shape_are_refused(wrong: Tensor) -> None:
    with pytest.raises(ValueError, match=rf"\(6, T, K\) with labels \(6, T\).*labels \({wrong.shape[0]},"):
        measure(Tied(), [(tokens(), wrong)])


@pytest.mark.slow
def test_a_vocabulary_of_150000_is_measured_without_a_matrix_of_its_square() -> None:
    model = Tied(150_000, 16)
    ids = torch.randint(0, 150_000, (1, 200), generator=torch.Generator().manual_seed(1)).repeat(3, 1)
    sizes: list[int] = []

    class Watching(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            sizes.append(result.numel() if isinstance(result, Tensor) else 0)
            return result

    with Watching():
        values = measure(model, [(ids, ids.roll(1, 1))])
    assert 0 <= values["accuracy"] <= 1
    assert values["nc/nc2_equinorm"] > 0
    assert max(sizes) <= 3 * 200 * 150_000  # the model's own logits


def test_a_tied_head_becomes_a_linear_head_that_keeps_the_tie_and_can_be_watched() -> None:
    model, ids = Tied(), tokens()
    labels, before = next_tokens(ids), model(ids)
    with pytest.raises(ValueError, match=r"shares one with 'embed\.weight'.*LinearHead keeps .*build the model untied"):
        swap_head(model, CosineHead, example=ids)
    with pytest.raises(ValueError, match="LinearHead keeps the shared weight, for as many classes"):
        swap_head(model, LinearHead, example=ids, num_classes=V + 1)
    head = swap_head(model, LinearHead, example=ids)
    assert head.weight is model.embed.weight
    assert head.bias is None
    assert torch.equal(model(ids), before)
    assert copy.deepcopy(model).out.weight is not head.weight
    watched = watch(model)
    logits = model(ids)
    with pytest.raises(ValueError, match=r"use watched.rows\(\) with labels.flatten\(\)"):
        watched.outputs  # noqa: B018
    rows, targets = watched.rows(), labels.flatten()
    batch = Batch(ids.flatten(), targets, torch.arange(len(targets)))
    assert torch.allclose(CrossEntropyLoss()(rows, batch), cross_entropy(logits.flatten(0, 1), targets), atol=1e-6)
    assert torch.allclose(CrossEntropyLoss()(logits, labels), cross_entropy(logits.flatten(0, 1), targets), atol=1e-6)
    DotRegressionLoss()(rows, batch).backward()
    assert model.mix.weight.grad is not None
    assert model.mix.weight.grad.any()
    untied = Tied()
    untied.out.weight = nn.Parameter(untied.embed.weight.detach().clone())
    assert swap_head(untied, spec(CosineHead), example=ids).num_classes == V


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_hugging_face_model_with_tied_embeddings() -> None:
    transformers = pytest.importorskip("transformers", reason="GPT-2 is in transformers, which is not installed")
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": T}
    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=V, bos_token_id=0, eos_token_id=1, **sizes)
    ).eval()
    ids = tokens()
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": next_tokens(ids)}
    assert "nc/nc1_pinv" in measure(model, [batch], layers=["transformer.h.0"])
    with pytest.raises(ValueError, match="these labels are the tokens themselves"):
        measure(model, [batch | {"labels": ids}])
    expected = model(ids).logits
    head = swap_head(model, LinearHead)
    assert head.weight is model.transformer.wte.weight
    assert torch.equal(model(ids).logits, expected)
    model.tie_weights()
    assert model.lm_head.weight is model.transformer.wte.weight
    watched = watch(model)
    model(ids)
    assert watched.rows().features.shape == (6 * T, 16)
