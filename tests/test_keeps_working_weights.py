"""After a swap, weights are still saved, loaded, moved, copied and averaged: every public head class."""

import copy
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.swapped_heads import (
    CLASSES,
    D,
    K,
    N,
    backbone,
    every_head,
    gradients,
    head_of,
    head_spec,
    images,
    labels,
    linear,
    seeded,
    step,
    swapped,
)
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from nc_tools.heads import CosineHead, ETFHead, FixedFrameHead, Head, LinearHead
from nc_tools.models import Classifier
from nc_tools.training.ema import WeightEMA
from nc_tools.training.optimizers import make_optimizer
from nc_tools.training.train_config import OptimConfig


def frames(head: Head) -> list[Tensor]:
    """Return the fixed frames of a head; empty if it learns all its parameters."""
    return [buffer for name, buffer in head.named_buffers() if name.split(".")[-1] == "frame"]


def test_all_public_heads_are_included() -> None:
    assert {LinearHead, CosineHead, ETFHead} <= set(CLASSES)
    assert FixedFrameHead not in CLASSES


@every_head
def test_a_checkpoint_loads_through_safetensors_and_torch(cls: type[Head], tmp_path: Path) -> None:
    model = swapped(cls).eval()
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    torch.save(model.state_dict(), tmp_path / "model.pt")
    for state in (load_file(tmp_path / "model.safetensors"), torch.load(tmp_path / "model.pt", weights_only=True)):
        other = swapped(cls, seed=3).eval()
        assert not torch.equal(other(images()), model(images()))
        assert not any(other.load_state_dict(state))
        assert torch.equal(other(images()), model(images()))


@every_head
@pytest.mark.parametrize("strict", [True, False])
def test_the_linear_layer_of_an_old_checkpoint_loads_only_into_linear_heads(cls: type[Head], strict: bool) -> None:
    old, model = linear(seed=3).eval(), swapped(cls).eval()
    head = head_of(model)
    kept = [frame.clone() for frame in frames(head)]
    if set(head.state_dict()) == {"weight", "bias"}:
        model.load_state_dict(old.state_dict(), strict=strict)
        assert torch.allclose(model(images()), old(images()), atol=1e-6)
    else:
        message = ""
        try:
            keys = model.load_state_dict(old.state_dict(), strict=strict)
        except RuntimeError as error:
            message = str(error)
        if message:
            assert re.search(r"1\.(weight|bias)", message)
        else:  # a learned head loads with strict=False, and torch reports the keys that it did not use
            assert not strict
            assert not isinstance(head, FixedFrameHead)
            assert "1.weight" in keys.unexpected_keys or "weight" in dict(head.named_parameters(recurse=False))
    assert all(torch.equal(a, b) for a, b in zip(frames(head), kept, strict=True))


@every_head
def test_a_model_moves_to_other_dtypes_and_devices(cls: type[Head]) -> None:
    model = swapped(cls).eval()
    expected = model(images())
    assert torch.allclose(model.double()(images().double()), expected.double(), atol=1e-4)
    half = model.to(torch.bfloat16)
    assert torch.isfinite(half(images().to(torch.bfloat16))).all()
    away = half.to("meta")
    assert {t.device.type for t in [*away.parameters(), *away.buffers()]} == {"meta"}
    assert away(images().to("meta", torch.bfloat16)).shape == (N, K)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@every_head
def test_a_model_moves_to_the_gpu_and_learns_there(cls: type[Head]) -> None:
    model = swapped(cls).eval()
    expected = model(images())
    model.cuda()
    assert torch.allclose(model(images().cuda()).cpu(), expected, atol=1e-2)
    with torch.autocast("cuda", torch.float16):
        loss = cross_entropy(model(images().cuda()), labels().cuda())
    loss.backward()  # type: ignore[no-untyped-call]
    assert all(torch.isfinite(g).all() for g in gradients(model).values())


@every_head
def test_a_copy_is_equal_and_its_own(cls: type[Head]) -> None:
    model = swapped(cls)
    twin = copy.deepcopy(model)
    assert torch.equal(twin.eval()(images()), model.eval()(images()))
    mine = {t.data_ptr() for t in [*model.parameters(), *model.buffers()] if t.numel()}
    assert mine.isdisjoint(t.data_ptr() for t in [*twin.parameters(), *twin.buffers()] if t.numel())


@every_head
def test_averages_of_the_weights_leave_the_frame_bit_equal(cls: type[Head]) -> None:
    """Our own average and PyTorch's, of parameters alone and of buffers too; the frame must not drift by a rounding."""
    model = Classifier(backbone(), head_spec(cls).build({"feature_dim": D, "num_classes": K, "generator": seeded(0)}))
    ours = WeightEMA(model, 0.9)
    plain = AveragedModel(model)
    moving = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    optimizer = make_optimizer(model, OptimConfig(lr=0.05))
    history = []
    for index in range(4):
        step(model, optimizer)
        ours.update(model, index)
        for average in (plain, moving):
            average.update_parameters(model)
        history.append([p.detach().clone() for p in model.parameters()])
    means = [torch.stack(values).mean(0) for values in zip(*history, strict=True)]
    assert all(torch.allclose(p, m, atol=1e-6) for p, m in zip(plain.module.parameters(), means, strict=True))
    batches = [images(4)] * 2
    update_bn(batches, plain)
    for average in (ours.model, plain.module, moving.module):
        assert isinstance(average, Classifier)
        kept = zip(frames(average.head), frames(model.head), strict=True)
        assert all(torch.equal(a, b) for a, b in kept)
        assert torch.isfinite(average.eval()(images())).all()
