"""What surrounds a model goes on working after its head was swapped: every public head class, found by itself."""

import copy
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file
from swapped import CLASSES, AllHeads, D, K, N, backbone, images, labels, linear, seeded, swapped, wanted
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn
from torch.utils.checkpoint import checkpoint

from nc_tools.heads import LEARNED, CosineHead, ETFHead, FixedFrameHead, Head, LinearHead, spec, swap_head, to_linear
from nc_tools.losses import DotRegression
from nc_tools.models import Classifier
from nc_tools.records import Batch
from nc_tools.spec import Spec
from nc_tools.training.config import OptimConfig
from nc_tools.training.ema import WeightEMA
from nc_tools.training.optim import make_optimizer

every_head = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)


def head_of(model: nn.Sequential) -> Head:
    head = model[1]
    assert isinstance(head, Head)
    return head


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def close(a: dict[str, Tensor], b: dict[str, Tensor], atol: float = 1e-6) -> bool:
    return a.keys() == b.keys() and all(torch.allclose(v, b[k], atol=atol) for k, v in a.items())


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    cross_entropy(model(images()), labels()).backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def frames(head: Head) -> list[Tensor]:
    """Return what a head holds fixed: empty for a head that learns all of it."""
    return [buffer for name, buffer in head.named_buffers() if name.split(".")[-1] == "frame"]


def test_the_public_heads_are_found() -> None:
    assert {LinearHead, CosineHead, ETFHead} <= set(CLASSES)
    assert FixedFrameHead not in CLASSES


# Weights: saved, loaded, moved, copied, averaged.


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
def test_the_linear_layer_of_an_old_checkpoint_loads_into_linear_heads_alone(cls: type[Head], strict: bool) -> None:
    old, model = linear(seed=3).eval(), swapped(cls).eval()
    head = head_of(model)
    kept = [frame.clone() for frame in frames(head)]
    if set(head.state_dict()) == {"weight", "bias"}:
        model.load_state_dict(old.state_dict(), strict=strict)
        assert torch.allclose(model(images()), old(images()), atol=1e-6)
    else:
        refused = ""
        try:
            told = model.load_state_dict(old.state_dict(), strict=strict)
        except RuntimeError as error:
            refused = str(error)
        if refused:
            assert re.search(r"1\.(weight|bias)", refused)
        else:  # what is learned may be asked to load without strictness: then torch reports what was left
            assert not strict
            assert not isinstance(head, FixedFrameHead)
            assert "1.weight" in told.unexpected_keys or "weight" in dict(head.named_parameters(recurse=False))
    assert all(torch.equal(a, b) for a, b in zip(frames(head), kept, strict=True))


@every_head
def test_a_model_moves_to_other_types_and_devices_whole(cls: type[Head]) -> None:
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
    model = Classifier(backbone(), wanted(cls).build({"feature_dim": D, "num_classes": K, "generator": seeded(0)}))
    ours = WeightEMA(model, 0.9)
    plain = AveragedModel(model)
    moving = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    optimizer = make_optimizer(model, OptimConfig(lr=0.05))
    seen = []
    for index in range(4):
        step(model, optimizer)
        ours.update(model, index)
        for average in (plain, moving):
            average.update_parameters(model)
        seen.append([p.detach().clone() for p in model.parameters()])
    means = [torch.stack(values).mean(0) for values in zip(*seen, strict=True)]
    assert all(torch.allclose(p, m, atol=1e-6) for p, m in zip(plain.module.parameters(), means, strict=True))
    batches = [images(4)] * 2
    update_bn(batches, plain)
    for average in (ours.model, plain.module, moving.module):
        assert isinstance(average, Classifier)
        kept = zip(frames(average.head), frames(model.head), strict=True)
        assert all(torch.equal(a, b) for a, b in kept)
        assert torch.isfinite(average.eval()(images())).all()


# Steps: gradients, autocast, per-sample gradients, checkpointing, optimisers.


@every_head
def test_the_backbone_learns(cls: type[Head]) -> None:
    model = swapped(cls)
    cross_entropy(model(images()), labels()).backward()  # type: ignore[no-untyped-call]
    found = gradients(model)
    assert set(found) == {name for name, p in model.named_parameters() if p.requires_grad}
    assert all(torch.isfinite(g).all() for g in found.values())
    assert all(g.any() for name, g in found.items() if name.startswith("0."))


@every_head
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_step_inside_autocast_is_near_the_one_outside(cls: type[Head], dtype: torch.dtype) -> None:
    model = swapped(cls)
    cross_entropy(model(images()), labels()).backward()  # type: ignore[no-untyped-call]
    expected = gradients(model)
    model.zero_grad()
    with torch.autocast("cpu", dtype):
        logits = model(images())
        assert logits.dtype == torch.float32
        loss = cross_entropy(logits, labels())
    loss.backward()  # type: ignore[no-untyped-call]
    found = gradients(model)
    assert found.keys() == expected.keys()
    assert all(gradient.dtype == torch.float32 for gradient in found.values())
    # The backbone computes in eight or eleven bits: the step must go the same way.
    a, b = (torch.cat([gradient.flatten() for gradient in part.values()]) for part in (found, expected))
    assert torch.cosine_similarity(a, b, dim=0) > (0.97 if dtype == torch.bfloat16 else 0.999)
    assert float(a.norm() / b.norm()) == pytest.approx(1, abs=0.1)


@every_head
def test_gradients_of_each_sample_add_up_to_the_batchs(cls: type[Head]) -> None:
    model = swapped(cls).eval()
    parameters, buffers = dict(model.named_parameters()), dict(model.named_buffers())

    def loss(values: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        logits = torch.func.functional_call(model, (values, buffers), (image[None],))
        return cross_entropy(logits, label[None])

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(parameters, images(), labels())
    cross_entropy(model(images()), labels()).backward()  # type: ignore[no-untyped-call]
    assert close({name: g.mean(0) for name, g in each.items()}, gradients(model), atol=1e-5)


@every_head
def test_a_loss_of_features_has_gradients_of_each_sample_too(cls: type[Head]) -> None:
    head, loss = head_of(swapped(cls)), DotRegression()

    def of(features: Tensor, label: Tensor) -> Tensor:
        return loss(head.outputs(features), Batch(features, label, label))  # type: ignore[no-any-return]

    features = torch.randn(N, D, generator=seeded(2)).relu()
    each = torch.func.vmap(torch.func.grad(lambda f, y: of(f[None], y[None])))(features, labels())
    features.requires_grad_()
    of(features, labels()).backward()  # type: ignore[no-untyped-call]
    assert features.grad is not None
    assert torch.allclose(each / N, features.grad, atol=1e-6)


@every_head
def test_checkpointed_activations_give_the_same_gradients(cls: type[Head]) -> None:
    model = swapped(cls).eval()
    cross_entropy(model(images()), labels()).backward()  # type: ignore[no-untyped-call]
    expected = gradients(model)
    model.zero_grad()
    logits = checkpoint(model, images(), use_reentrant=False)
    cross_entropy(logits, labels()).backward()
    assert close(gradients(model), expected)


@every_head
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW, torch.optim.RMSprop])
def test_an_optimiser_with_a_group_for_the_head_takes_a_head_without_parameters(
    cls: type[Head], optimizer: type[torch.optim.Optimizer]
) -> None:
    model = swapped(cls)
    head = head_of(model)
    before = copy.deepcopy(model.state_dict())
    groups: list[dict[str, Any]] = [
        {"params": model[0].parameters()},
        {"params": head.parameters(), "lr": 0.1, "weight_decay": 0.0},
    ]
    both = optimizer(groups, lr=0.01)  # type: ignore[call-arg]
    step(model, both)
    both.load_state_dict(copy.deepcopy(both.state_dict()))
    step(model, both)
    after = model.state_dict()
    assert all(not torch.equal(after[name], before[name]) for name in after if name.endswith("layers.0.weight"))
    fixed = {f"1.{name}" for name, _ in head.named_buffers() if name.split(".")[-1] == "frame"}
    assert all(torch.equal(after[name], before[name]) for name in fixed)
    names = {name for name, _ in head.named_parameters()}
    assert all(not torch.equal(after[f"1.{name}"], before[f"1.{name}"]) for name in names)


def test_an_optimiser_of_nothing_but_an_empty_head_is_torchs_error_and_our_own_leaves_its_group_out() -> None:
    with pytest.raises(ValueError, match="empty parameter list"):
        torch.optim.SGD(ETFHead(D, K).parameters(), lr=0.1)
    rates = OptimConfig(lr=0.1, head_lr_ratio=2.0)
    fixed = make_optimizer(Classifier(backbone(), ETFHead(D, K)), rates)
    learned = make_optimizer(Classifier(backbone(), LinearHead(D, K)), rates)
    assert [group["lr"] for group in fixed.param_groups] == [0.1, 0.1]
    assert [group["lr"] for group in learned.param_groups] == [0.1, 0.1, 0.2, 0.2]


# Graphs: compiled, exported, logged. One backbone under all heads, so that each is traced once.


def test_all_heads_compile_in_one_graph() -> None:
    model = AllHeads().eval()

    def total(logits: dict[str, Tensor]) -> Tensor:
        return torch.stack([cross_entropy(z, labels()) for z in logits.values()]).sum()

    total(model(images())).backward()  # type: ignore[no-untyped-call]
    expected = gradients(model)
    model.zero_grad()
    torch._dynamo.reset()
    # The whole of the compiler but its last part, the generation of code, which takes minutes and knows no head.
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    total(compiled(images())).backward()  # type: ignore[no-untyped-call]
    assert close(gradients(model), expected, atol=1e-5)


@pytest.fixture(scope="module")
def exported() -> tuple[AllHeads, torch.export.ExportedProgram]:
    model = AllHeads().eval()
    batch = {0: torch.export.Dim.DYNAMIC}
    return model, torch.export.export(model, (images(),), dynamic_shapes=(batch,), strict=True)


def test_all_heads_export_for_any_batch_and_load_again(
    exported: tuple[AllHeads, torch.export.ExportedProgram],
) -> None:
    model, program = exported
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    buffer.seek(0)
    again = torch.export.load(buffer).module()
    for n in (2, N, 31):
        expected = model(images(n))
        assert close(again(images(n)), expected, atol=1e-5)


def test_all_heads_give_the_same_logits_in_onnxruntime(
    exported: tuple[AllHeads, torch.export.ExportedProgram],
) -> None:
    import onnxruntime

    model, program = exported
    converted = torch.onnx.export(program, dynamo=True, verbose=False)
    assert converted is not None
    session = onnxruntime.InferenceSession(
        converted.model_proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (given,) = session.get_inputs()
    for n in (1, N, 31):
        seen = images(n)
        seen[n // 2] = 0  # its features are zero: nothing may divide by their length
        expected = model(seen)
        found = session.run(None, {given.name: seen.numpy()})
        for (name, logits), got in zip(expected.items(), found, strict=True):
            assert np.allclose(got, logits.detach().numpy(), atol=1e-4), name


def test_plain_layers_export_and_run_in_onnxruntime_too() -> None:
    import onnxruntime

    head = ETFHead(D, K, projection=True, scale=LEARNED)
    features = torch.randn(N, D, generator=seeded(2))
    features[3] = 0
    batch = {0: torch.export.Dim.DYNAMIC}
    program = torch.export.export(to_linear(head).eval(), (features[:2],), dynamic_shapes=(batch,))
    assert torch.allclose(program.module()(features), head(features), atol=1e-5)
    # Optimised, the exporter takes epsilons below 1e-8 for zero, and a feature of zeros comes out as NaN.
    converted = torch.onnx.export(program, dynamo=True, verbose=False, optimize=False)
    assert converted is not None
    session = onnxruntime.InferenceSession(
        converted.model_proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(None, {session.get_inputs()[0].name: features.numpy()})
    assert np.allclose(found, head(features).detach().numpy(), atol=1e-5)


@every_head
def test_every_affine_head_becomes_plain_layers_and_the_others_say_why_not(cls: type[Head]) -> None:
    model = swapped(cls).eval()
    head = head_of(model)
    if not head.affine:
        with pytest.raises(TypeError, match=f"{cls.__name__} is not affine"):
            to_linear(head)
        return
    if cls.embed not in (Head.embed, FixedFrameHead.embed, CosineHead.embed):
        with pytest.raises(TypeError, match=f"{cls.__name__} embeds features in a way of its own"):
            to_linear(head)
        return
    expected = model(images())
    model[1] = to_linear(head)
    assert not any(type(m).__module__.startswith("nc_tools.heads") for m in model.modules())
    assert torch.allclose(model(images()), expected, atol=1e-4)


# MLflow's own, as it is imported and as it reads the signature of any PyTorch model.
@pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType.*:UserWarning")
def test_a_model_is_logged_to_mlflow_and_comes_back_without_a_pickle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    model = linear()
    swap_head(model, spec(ETFHead, projection=True, scale=LEARNED))
    model.eval()
    try:
        experiment = mlflow.create_experiment("swapped", artifact_location=(tmp_path / "artifacts").as_uri())
        with mlflow.start_run(experiment_id=experiment):
            # Two images: an example of one would fix the batch at one. Requirements given, not inferred: that takes
            # a process of its own.
            told = mlflow.pytorch.log_model(
                model, name="model", input_example=images(2).numpy(), pip_requirements=["torch"]
            )
        loaded = mlflow.pytorch.load_model(told.model_uri)
    finally:
        mlflow.set_tracking_uri(None)
    assert [f.suffix for f in (tmp_path / "artifacts").rglob("data/*") if f.name.startswith("model")] == [".pt2"]
    assert torch.allclose(loaded(images(7)), model(images(7)), atol=1e-5)


# A network that was not written for this.


def test_a_torchvision_resnet_goes_on_working() -> None:
    def build(seed: int, head: Spec[Head]) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model: nn.Module = torchvision.models.resnet18(weights=None, num_classes=K)
        swap_head(model, head, example=torch.zeros(2, 3, 32, 32), generator=seeded(seed))
        return model

    head: Spec[Head] = spec(ETFHead, projection=True, scale=LEARNED)
    x = torch.randn(4, 3, 32, 32, generator=seeded(0))
    model = build(0, head)
    body = [p for name, p in model.named_parameters() if not name.startswith("fc.")]
    optimizer = torch.optim.SGD([{"params": body}, {"params": model.get_submodule("fc").parameters()}], lr=0.01)
    average = AveragedModel(model)
    with torch.autocast("cpu", torch.bfloat16):
        loss = cross_entropy(checkpoint(model, x, use_reentrant=False), labels(4))
    loss.backward()
    optimizer.step()
    average.update_parameters(model)
    update_bn([x], average)
    assert torch.isfinite(average(x)).all()
    model.eval()
    other = build(1, head).eval()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(x), model(x))
    with pytest.raises(RuntimeError, match=r"fc is a fixed simplex ETF frame.*learned fc\.weight"):
        model.load_state_dict(torchvision.models.resnet18(weights=None, num_classes=K).state_dict(), strict=False)
    program = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    bigger = torch.randn(6, 3, 32, 32, generator=seeded(1))
    assert torch.allclose(program.module()(bigger), model(bigger), atol=1e-4)
