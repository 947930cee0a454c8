"""After a swap, a model is still compiled, exported and logged: every public head class."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from support.swapped_heads import (
    AllHeads,
    D,
    K,
    N,
    close,
    every_head,
    gradients,
    head_of,
    images,
    labels,
    linear,
    seeded,
    swapped,
)
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import AveragedModel, update_bn
from torch.utils.checkpoint import checkpoint

from nc_tools.heads import LEARNED, CosineHead, ETFHead, FixedFrameHead, Head
from nc_tools.specs import Spec, spec
from nc_tools.surgery import swap_head, to_linear


@pytest.mark.slow
def test_all_heads_compile_in_one_graph() -> None:
    model = AllHeads().eval()

    def total(logits: dict[str, Tensor]) -> Tensor:
        return torch.stack([cross_entropy(z, labels()) for z in logits.values()]).sum()

    total(model(images())).backward()  # type: ignore[no-untyped-call]
    expected = gradients(model)
    model.zero_grad()
    torch._dynamo.reset()
    # aot_eager runs all of the compiler except code generation, which takes minutes and does not depend on the head.
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    total(compiled(images())).backward()  # type: ignore[no-untyped-call]
    assert close(gradients(model), expected, atol=1e-5)


@pytest.fixture(scope="module")
def exported() -> tuple[AllHeads, torch.export.ExportedProgram]:
    model = AllHeads().eval()
    batch = {0: torch.export.Dim.DYNAMIC}
    return model, torch.export.export(model, (images(),), dynamic_shapes=(batch,), strict=True)


@pytest.mark.slow
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


@pytest.mark.slow
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
    (model_input,) = session.get_inputs()
    for n in (1, N, 31):
        inputs = images(n)
        inputs[n // 2] = 0  # its features are zero: nothing may divide by their length
        expected = model(inputs)
        results = session.run(None, {model_input.name: inputs.numpy()})
        for (name, logits), result in zip(expected.items(), results, strict=True):
            assert np.allclose(result, logits.detach().numpy(), atol=1e-4), name


@pytest.mark.slow
def test_plain_layers_export_and_run_in_onnxruntime_too() -> None:
    import onnxruntime

    head = ETFHead(D, K, projection=True, scale=LEARNED)
    features = torch.randn(N, D, generator=seeded(2))
    features[3] = 0
    batch = {0: torch.export.Dim.DYNAMIC}
    program = torch.export.export(to_linear(head).eval(), (features[:2],), dynamic_shapes=(batch,))
    assert torch.allclose(program.module()(features), head(features), atol=1e-5)
    # The exporter's optimizer replaces epsilons below 1e-8 by zero, and a row of zeros would give NaN.
    converted = torch.onnx.export(program, dynamo=True, verbose=False, optimize=False)
    assert converted is not None
    session = onnxruntime.InferenceSession(
        converted.model_proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (logits,) = session.run(None, {session.get_inputs()[0].name: features.numpy()})
    assert np.allclose(logits, head(features).detach().numpy(), atol=1e-5)


@every_head
def test_every_affine_head_becomes_plain_layers_and_the_others_raise(cls: type[Head]) -> None:
    model = swapped(cls).eval()
    head = head_of(model)
    if not head.affine:
        with pytest.raises(TypeError, match=f"{cls.__name__} is not affine"):
            to_linear(head)
        return
    if cls.embed not in (Head.embed, FixedFrameHead.embed, CosineHead.embed):
        with pytest.raises(TypeError, match=f"{cls.__name__} has its own embed method"):
            to_linear(head)
        return
    expected = model(images())
    model[1] = to_linear(head)
    assert not any(type(m).__module__.startswith("nc_tools.heads") for m in model.modules())
    assert torch.allclose(model(images()), expected, atol=1e-4)


# MLflow emits this warning on import and when it infers the signature of a PyTorch model.
@pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType.*:UserWarning")
@pytest.mark.slow
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
            # Two images, because an example of one fixes the batch size at one. With pip_requirements, MLflow starts no
            # process to infer them.
            logged = mlflow.pytorch.log_model(
                model, name="model", input_example=images(2).numpy(), pip_requirements=["torch"]
            )
        loaded = mlflow.pytorch.load_model(logged.model_uri)
    finally:
        mlflow.set_tracking_uri(None)
    assert [f.suffix for f in (tmp_path / "artifacts").rglob("data/*") if f.name.startswith("model")] == [".pt2"]
    assert torch.allclose(loaded(images(7)), model(images(7)), atol=1e-5)


# A network that was not written for nc_tools.


@pytest.mark.slow
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
    with pytest.raises(RuntimeError, match=r"fc has a fixed simplex ETF frame.*learned fc\.weight"):
        model.load_state_dict(torchvision.models.resnet18(weights=None, num_classes=K).state_dict(), strict=False)
    program = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    bigger = torch.randn(6, 3, 32, 32, generator=seeded(1))
    assert torch.allclose(program.module()(bigger), model(bigger), atol=1e-4)
