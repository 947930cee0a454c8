"""Hugging Face classifiers: image families, text families, language models."""

import copy
from typing import Any

import pytest
import torch
import transformers
from packaging.version import Version
from support import swap_models
from support.slow_cases import slow_except
from torch import Tensor, nn

from nc_tools.heads import CosineHead, ETFHead, LinearHead
from nc_tools.losses import DotRegressionLoss
from nc_tools.records import Batch
from nc_tools.surgery import find_head, swap_head, watch

IMAGES = swap_models.hf_image_classes()
K = swap_models.K
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}

FAST = ["ViTForImageClassification", "DeiTForImageClassificationWithTeacher"]

AVERAGED = sorted(name for name, layers in swap_models.HF_UNSUPPORTED.items() if layers)


def vit(**options: Any) -> Any:
    torch.manual_seed(0)
    return transformers.ViTForImageClassification(
        transformers.ViTConfig(**SMALL, image_size=16, patch_size=8, **options)
    )


@pytest.mark.parametrize("name", slow_except([n for n in IMAGES if n not in swap_models.HF_UNSUPPORTED], *FAST))
def test_every_image_family_takes_a_new_head(name: str) -> None:
    model = swap_models.hf_image_model(name)
    example = swap_models.hf_example(name)
    old = model.get_submodule(find_head(model, example=example))
    head = swap_head(model, LinearHead, num_classes=7, example=example)
    assert any(module is head for module in model.modules())
    assert isinstance(old, nn.Linear)
    assert (head.feature_dim, old.out_features) == (old.in_features, K)
    assert model.config.num_labels == len(model.config.id2label or range(7)) == 7
    assert getattr(model, "num_labels", 7) == 7


@pytest.mark.parametrize("name", slow_except(AVERAGED, *FAST))
def test_averaged_heads_raise_and_each_can_be_given_by_name(name: str) -> None:
    model, layers = swap_models.hf_image_model(name), swap_models.HF_UNSUPPORTED[name]
    before = str(model)
    with pytest.raises(ValueError, match=r"(?s)[pP]ass name=") as error:
        swap_head(model, ETFHead)
    assert str(model) == before
    if len(layers) > 1:
        assert all(repr(layer) in str(error.value) for layer in layers)
        assert "or with each in turn if the model combines their outputs" in str(error.value)
    heads = [swap_head(model, ETFHead, name=layer, num_classes=7) for layer in layers]
    output = model(torch.zeros(2, 3, 224, 224, device="meta"))
    assert next(iter(output.values())).shape == (2, 7)
    assert [model.get_submodule(layer) for layer in layers] == heads
    assert model.config.num_labels == 7


@pytest.mark.slow
def test_a_language_model_that_answers_with_two_words_raises() -> None:
    name = "ShieldGemma2ForImageClassification"
    with pytest.raises(ValueError, match=r"could not run|returns the logits unchanged"):
        swap_head(swap_models.hf_image_model(name), ETFHead)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")  # by older transformers
@pytest.mark.parametrize("name", swap_models.HF_TEXT)
def test_text_families_take_a_new_head_and_keep_their_loss(name: str) -> None:
    if name.startswith("ModernBert") and Version(transformers.__version__) < Version("5.24"):
        pytest.skip("transformers 5.12 cannot build a ModernBERT; 5.24 can")
    model = swap_models.hf_text_model(name).eval()
    ids = torch.tensor([[5, 6, 7, 8, 1 if name.startswith("T5") else 9]])
    expected = model(input_ids=ids).logits
    old = model.get_submodule(find_head(model))
    linear = swap_head(copy.deepcopy(model), LinearHead)
    again = copy.deepcopy(model)
    linear = swap_head(again, LinearHead)
    linear.load_state_dict(old.state_dict(), strict=old.bias is not None)
    if old.bias is None:
        nn.init.zeros_(linear.bias)
    assert torch.allclose(again(input_ids=ids).logits, expected, atol=1e-6)
    head = swap_head(model, CosineHead, num_classes=7)
    output = model(input_ids=ids, labels=torch.tensor([6]))
    assert output.logits.shape == (1, 7)
    assert torch.allclose(output.loss, nn.functional.cross_entropy(output.logits, torch.tensor([6])))
    output.loss.backward()
    assert head.direction.grad is not None
    assert model.get_input_embeddings().weight.grad.abs().max() > 0


@pytest.mark.parametrize("name", sorted(swap_models.PER_TOKEN))
def test_a_head_on_every_token_is_found_by_values_or_named(name: str) -> None:
    model = swap_models.hf_text_model(name)
    assert find_head(model) == "score"
    ids = {"input_ids": torch.full((1, 3), 7)}
    model.get_submodule("score").weight.data.zero_()  # x
    with pytest.raises(ValueError, match=r"'score' scores every token.*does not show.*Pass name='score' if it picks"):
        find_head(model, example=ids)
    with pytest.raises(ValueError, match="Pass name='score'"):
        find_head(swap_models.hf_text_model(name).to("meta"), example={"input_ids": ids["input_ids"].to("meta")})
    assert swap_head(model, ETFHead, name="score", num_classes=5) is model.score
    watched = watch(model)
    model(**ids)
    with pytest.raises(ValueError, match=r"the head ran on features \(1, 3, 16\): use watched.rows"):
        watched.outputs  # noqa: B018


class AveragedTokens(nn.Module):
    """Scores tokens and averages the scores: not the same as one token's once features are normalized."""

    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.score(x).mean(1)  # type: ignore[no-any-return]


def test_scores_averaged_over_tokens_are_no_head() -> None:
    for tokens in (torch.randn(2, 4, 6), torch.ones(2, 4, 6)):
        with pytest.raises(
            ValueError,
            match="'score' scores every token, and this input does not show whether the",
        ):
            swap_head(AveragedTokens(), ETFHead, example=tokens)


def test_a_head_tied_to_the_embedding_raises_and_an_untied_one_does_not() -> None:
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 20}
    tied = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes))
    assert find_head(tied) == "lm_head"
    for name in (None, "lm_head"):
        with pytest.raises(
            ValueError, match=r"'lm_head' shares one with 'transformer.wte.weight'.*tie_word_embeddings=False"
        ):
            swap_head(tied, CosineHead, name=name)
    assert tied.lm_head.weight is tied.transformer.wte.weight
    free = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, tie_word_embeddings=False))
    embedding = free.transformer.wte.weight
    assert swap_head(free, LinearHead) is free.lm_head
    assert free.transformer.wte.weight is embedding
    with pytest.raises(ValueError, match=r"simplex ETF of 20 classes needs feature_dim >= 19, got 16"):
        swap_head(free, ETFHead)


def test_the_loss_inside_the_model_goes_on_with_other_numbers_of_classes() -> None:
    images, labels = torch.randn(3, 3, 16, 16), torch.tensor([0, 1, 6])
    model = vit(num_labels=3)
    swap_head(model, ETFHead, num_classes=7)
    output = model(pixel_values=images, labels=labels)
    assert torch.allclose(output.loss, nn.functional.cross_entropy(output.logits, labels))
    output.loss.backward()
    assert model.vit.embeddings.cls_token.grad.abs().max() > 0
    assert (model.num_labels, model.config.num_labels, len(model.config.label2id)) == (7, 7, 7)


def test_label_names_stay_if_the_number_stays_and_are_restored_after_a_failure() -> None:
    names = {0: "cat", 1: "dog", 2: "owl"}
    model = vit(id2label=names, label2id={v: k for k, v in names.items()})
    swap_head(model, ETFHead)
    assert model.config.id2label == names
    old = model.classifier
    plain = type(model).forward

    def raises(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.config.num_labels != 3:
            raise RuntimeError("no")
        return plain(self, *args, **kwargs)

    model.forward = raises.__get__(model)
    with pytest.raises(RuntimeError, match="no"):
        swap_head(model, ETFHead, num_classes=5, example=torch.zeros(1, 3, 16, 16))
    assert model.classifier is old
    assert model.config.id2label == names
    assert model.config.label2id == {v: k for k, v in names.items()}
    assert (model.num_labels, model.config.num_labels) == (3, 3)


def test_one_regressed_number_becomes_classes() -> None:
    model = vit(num_labels=1, problem_type="regression")
    swap_head(model, ETFHead, num_classes=3)
    assert model.config.problem_type is None
    output = model(pixel_values=torch.randn(2, 3, 16, 16), labels=torch.tensor([0, 2]))
    assert torch.allclose(output.loss, nn.functional.cross_entropy(output.logits, torch.tensor([0, 2])))


def test_half_precision_from_images_to_gradients() -> None:
    model = vit(num_labels=3).to(torch.bfloat16)
    swap_head(model, ETFHead)
    output = model(pixel_values=torch.randn(2, 3, 16, 16).bfloat16(), labels=torch.tensor([0, 2]))
    assert (output.logits.dtype, output.loss.dtype) == (torch.float32, torch.float32)
    output.loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


# Newer releases have another name for it.
@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing_enable:FutureWarning")
@pytest.mark.parametrize("reentrant", [False, True])
def test_a_loss_on_features_with_the_models_own_checkpointing(reentrant: bool) -> None:
    def gradients(checkpointed: bool) -> dict[str, Tensor]:
        model = vit(num_labels=3).train()
        swap_head(model, ETFHead)
        watched = watch(model)
        if checkpointed:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
        torch.manual_seed(1)
        model(pixel_values=torch.randn(3, 3, 16, 16))
        DotRegressionLoss()(watched.outputs, Batch(torch.empty(3), torch.arange(3), torch.arange(3))).backward()
        return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}

    plain, saved = gradients(checkpointed=False), gradients(checkpointed=True)
    assert plain.keys() == saved.keys()
    assert all(torch.allclose(plain[n], saved[n], atol=1e-6) for n in plain)


def test_a_model_without_labels_gives_features() -> None:
    with pytest.raises(ValueError, match=r"was built for 0 classes and returns features: build it with num_la"):
        swap_head(vit(num_labels=0), ETFHead)
