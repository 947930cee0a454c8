"""Every head, through every way that people save and load weights: another seed, then the same logits."""

import copy
import io
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file, save_file
from support.head_variants import K, NegatedHead, features
from support.many_heads import ManyHeads
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nc_tools.heads import RANDOM, BalancedCalibrationHead, RandomAssignment, StructuredETFHead

State = dict[str, Tensor]


def trained(seed: int = 0) -> ManyHeads:
    """Return a model after two steps, with the state of heads that follow the class means."""
    model = ManyHeads(seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    labels = torch.arange(11) % K
    for step in range(2):
        optimizer.zero_grad()
        torch.stack([cross_entropy(z, labels) for z in model(features())]).sum().backward()
        optimizer.step()
        hidden = model.body(features()).relu()
        for head in model.heads:
            head.observe(head.outputs(hidden), labels, step / 4)
    return model.eval()


MODEL = trained()


def same(loaded: ManyHeads, atol: float = 0.0) -> None:
    with torch.no_grad():
        logits, expected = loaded.eval()(features()), MODEL(features())
    for head, a, b in zip(loaded.heads, logits, expected, strict=True):
        assert torch.allclose(a, b, atol=atol * float(b.abs().max()), rtol=0), head


def through_torch(state: State, tmp_path: Path, _: nn.Module | None = None) -> State:
    torch.save(state, tmp_path / "w.pt")
    loaded: State = torch.load(tmp_path / "w.pt", weights_only=True)
    return loaded


def through_safetensors(state: State, tmp_path: Path, _: nn.Module | None = None) -> State:
    save_file(state, tmp_path / "w.safetensors")
    return load_file(tmp_path / "w.safetensors")


def through_distributed(state: State, tmp_path: Path, other: nn.Module | None = None) -> State:
    """Save for any number of processes, and load into the tensors of another model."""
    dcp.save(state, checkpoint_id=str(tmp_path / "dcp"), no_dist=True)
    loaded = (other or ManyHeads(3)).state_dict()
    dcp.load(loaded, checkpoint_id=str(tmp_path / "dcp"), no_dist=True)
    return loaded


def half(state: State, _: Path) -> State:
    return {k: v.half() for k, v in state.items()}


def brain_float(state: State, _: Path) -> State:
    return {k: v.bfloat16() if v.is_floating_point() else v for k, v in state.items()}


def mean(state: State, _: Path) -> State:
    """The mean of two models, as in model soups and federated learning."""
    return {k: (v + copy.deepcopy(v)) / 2 for k, v in state.items()}


TYPED_STORAGE = "ignore:TypedStorage is deprecated:UserWarning"  # distributed checkpoints of PyTorch 2.10 read it

WAYS: list[tuple[Callable[[State, Path], State], float]] = [
    (through_torch, 0.0), (through_safetensors, 0.0), (through_distributed, 0.0), (mean, 0.0), (half, 0.02),
    (brain_float, 0.05),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning", TYPED_STORAGE)
@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(("way", "atol"), WAYS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_state_dict_gives_the_logits_back(
    way: Callable[[State, Path], State], atol: float, strict: bool, tmp_path: Path
) -> None:
    other = ManyHeads(3)
    assert not torch.allclose(other(features()), MODEL(features()), atol=0.1)
    assert not any(other.load_state_dict(way(MODEL.state_dict(), tmp_path), strict=strict))
    same(other, atol)


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning", TYPED_STORAGE)
@pytest.mark.parametrize(("saved", "own"), [(None, RANDOM), (RANDOM, None)], ids=["none", "random"])
@pytest.mark.parametrize("way", [through_torch, through_safetensors, through_distributed])
def test_a_head_takes_the_order_of_the_classes_from_a_checkpoint(
    way: Callable[..., State], saved: RandomAssignment | None, own: RandomAssignment | None, tmp_path: Path
) -> None:
    """Of a head with an assignment into one without, and the reverse."""
    head = StructuredETFHead(24, K, assignment=saved)
    other = StructuredETFHead(24, K, assignment=own, frame_seed=3)
    other.load_state_dict(way(head.state_dict(), tmp_path, other))
    assert torch.equal(other(features()), head(features()))


def test_an_average_follows_a_model_that_took_another_order() -> None:
    """AveragedModel copies into the buffers that it has, which would broadcast a shorter order."""
    model = nn.Sequential(StructuredETFHead(24, K, assignment=RANDOM))
    average = torch.optim.swa_utils.AveragedModel(model, use_buffers=True)
    model.load_state_dict(nn.Sequential(StructuredETFHead(24, K, frame_seed=3)).state_dict())
    average.update_parameters(model)
    assert torch.equal(average(features()), model(features()))


def test_checkpoints_are_tensors_of_the_models_type_and_orders() -> None:
    model = copy.deepcopy(MODEL).to(torch.bfloat16)
    assert {k.split(".")[-1] for k, v in model.state_dict().items() if v.dtype != torch.bfloat16} == {
        "order",
        "classes",
    }
    assert all(v.dtype == torch.int64 for v in model.state_dict().values() if v.dtype != torch.bfloat16)
    assert all(p.ndim for p in model.parameters())


def test_an_assigned_state_dict_and_a_model_of_the_meta_device() -> None:
    with torch.device("meta"):
        other = ManyHeads(3)
    other.load_state_dict(MODEL.state_dict(), assign=True)
    same(other)


@pytest.mark.parametrize("assigned", [False, True])
def test_timms_average_follows(assigned: bool) -> None:
    utils = pytest.importorskip("timm.utils", reason="needs timm")
    model = ManyHeads(3)
    average = utils.ModelEmaV3(model, decay=0.0)
    model.load_state_dict(MODEL.state_dict())
    if assigned:
        model.heads[0].load_state_dict(copy.deepcopy(MODEL.heads[0].state_dict()), assign=True)
    average.update(model)
    if average.module.heads[0].state_dict().keys() == MODEL.heads[0].state_dict().keys():
        fresh = ManyHeads(5)
        state = average.module.state_dict()
        fresh.load_state_dict(state)
        for head, mine in zip(fresh.heads, MODEL.heads, strict=True):
            for (name, a), (_, b) in zip(head.state_dict().items(), mine.state_dict().items(), strict=True):
                assert torch.allclose(a, b), (head, name)


@pytest.mark.parametrize("buffers", [False, True])
@pytest.mark.slow
def test_accelerate_dispatches_a_model_that_was_built_without_memory(buffers: bool, tmp_path: Path) -> None:
    accelerate = pytest.importorskip("accelerate", reason="needs accelerate")
    save_file(MODEL.state_dict(), tmp_path / "model.safetensors")
    with accelerate.init_empty_weights(include_buffers=buffers):
        other = ManyHeads(3)
    dispatched = accelerate.load_checkpoint_and_dispatch(
        other, str(tmp_path / "model.safetensors"), device_map={"": "cpu"}
    )
    same(dispatched, 1e-6)  # memory that is aligned otherwise is multiplied in another order
    save_file(MODEL.body.state_dict(prefix="body."), tmp_path / "body.safetensors")
    with accelerate.init_empty_weights(include_buffers=buffers):
        other = ManyHeads(3)
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
        accelerate.load_checkpoint_and_dispatch(other, str(tmp_path / "body.safetensors"), device_map={"": "cpu"})
    assert not any(
        any(head.load_state_dict(MODEL.heads[i].state_dict(), assign=True)) for i, head in enumerate(other.heads)
    )
    same(accelerate.dispatch_model(other, device_map={"": "cpu"}), 1e-6)


@pytest.mark.parametrize("buffers", [False, True])
def test_accelerate_offloads_parameters_and_buffers(buffers: bool) -> None:
    accelerate = pytest.importorskip("accelerate", reason="needs accelerate")
    for head in MODEL.heads:
        alone = nn.Sequential(copy.deepcopy(head))
        expected = alone(features())
        offloaded = accelerate.cpu_offload(alone, execution_device=torch.device("cpu"), offload_buffers=buffers)
        if buffers and isinstance(head, BalancedCalibrationHead):  # it computes with the frame of a head inside
            with pytest.raises(RuntimeError, match=r"offloaded, keep the buffers in memory \(offload_buffers=False\)"):
                offloaded(features())
        else:
            assert torch.allclose(offloaded(features()), expected, atol=1e-6), head


def test_accelerate_restores_a_state(tmp_path: Path) -> None:
    accelerate = pytest.importorskip("accelerate", reason="needs accelerate")
    accelerator = accelerate.Accelerator(cpu=True)
    accelerator.prepare(copy.deepcopy(MODEL))
    accelerator.save_state(str(tmp_path / "state"))
    again = accelerate.Accelerator(cpu=True)
    model = again.prepare(ManyHeads(3))
    again.load_state(str(tmp_path / "state"))
    same(model)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Lightning, about its own loaders and devices
def test_lightning_restores_a_checkpoint(tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning", reason="needs lightning")

    class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self, seed: int = 3) -> None:
            super().__init__()
            self.model = ManyHeads(seed)

        def training_step(self, batch: list[Tensor]) -> Tensor:
            return 0.0 * self.model(batch[0]).sum()  # type: ignore[no-any-return]

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.0)

    module = Module()
    module.model.load_state_dict(MODEL.state_dict())
    trainer = lightning.Trainer(
        max_steps=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, torch.utils.data.DataLoader(torch.utils.data.TensorDataset(features()), batch_size=11))
    trainer.save_checkpoint(tmp_path / "m.ckpt")
    same(Module.load_from_checkpoint(tmp_path / "m.ckpt", seed=5).model)


def test_a_pickled_model_and_a_copy() -> None:
    buffer = io.BytesIO()
    torch.save(MODEL, buffer)
    buffer.seek(0)
    same(torch.load(buffer, weights_only=False))
    same(copy.deepcopy(MODEL))


def test_the_frame_of_each_geometry_is_refused_by_the_others() -> None:
    """Or gives the same logits, where two classes store the same frame."""
    x = features()
    heads = [head for head in MODEL.heads if not isinstance(head, NegatedHead) and hasattr(head, "geometry")]
    refused = 0
    for head in copy.deepcopy(nn.ModuleList(heads)):
        before = copy.deepcopy(head.state_dict())
        for other in heads:
            if type(other) is type(head):
                continue
            try:
                keys = head.load_state_dict(other.state_dict(), strict=False)
            except RuntimeError:
                refused += 1
            else:
                assert any(keys) or torch.equal(head(x), other(x)), (head, other)
                assert not any(keys), (head, other)
            head.load_state_dict(before)
    assert refused > 300
