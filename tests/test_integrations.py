"""Callbacks for Lightning and the Hugging Face Trainer: the record of the run, and its values."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import nc_tools
from nc_tools.integrations import LoopRecorder, lightning_callback, trainer_callback
from nc_tools.run_records import read_run


@pytest.fixture(autouse=True)
def no_sender(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the process that copies records to MLflow, which takes seconds to start."""
    monkeypatch.setattr(sys.modules["nc_tools.tracking.track"], "_ensure_sender", lambda _: None)


def tensors(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(48) % 3
    return torch.randn(48, 1, 4, 4, generator=generator) + labels[:, None, None, None], labels


def loader(seed: int) -> DataLoader[Any]:
    return DataLoader(TensorDataset(*tensors(seed)), batch_size=16)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))


def recorder(root: Path, **more: Any) -> LoopRecorder:
    return LoopRecorder(root=root, arm="mine", seed=3, train=loader(0), test=loader(1), holdout=loader(2), **more)


def the_run(root: Path) -> Any:
    (path,) = (root / "runs").iterdir()
    return read_run(path)


def test_an_own_loop(tmp_path: Path) -> None:
    made, model = recorder(tmp_path, classes=("a", "b", "c"), config={"lr": 0.1}), network()
    made.start(model)
    for epoch in (1, 2):
        made.log(epoch, {"train/loss": torch.tensor(1.0 / epoch), "note": "text", "flag": True})
    values = made.finish(model)
    run = the_run(tmp_path)
    assert run.status == "FINISHED"
    assert run.curves()["train/loss"] == [(1, 1.0), (2, 0.5)]
    assert "note" not in run.curves()
    expected = nc_tools.evaluate(model, loader(0), loader(1), holdout=loader(2))
    assert values == expected
    assert run.final["test/gen/accuracy"] == expected["test/gen/accuracy"]
    assert (run.path / "per_class.json").exists()
    assert run.identity.config == {"lr": 0.1}


def test_a_loop_that_fails(tmp_path: Path) -> None:
    made = recorder(tmp_path)
    made.start(network())
    made.fail(ValueError("the loss is not a number"))
    run = the_run(tmp_path)
    assert run.status == "FAILED"
    assert "the loss is not a number" in run.error


def test_a_loop_that_never_began(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="call start"):
        recorder(tmp_path).finish(network())


@pytest.mark.filterwarnings("ignore")  # of Lightning, about its own loaders and devices
def test_a_training_of_lightning(tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning.pytorch", reason="the callback needs lightning")

    class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self, fails: bool = False, ended: bool = False) -> None:
            super().__init__()
            self.model = network()
            self.fails, self.ended = fails, ended

        def forward(self, inputs: Tensor) -> Tensor:
            return self.model(inputs)  # type: ignore[no-any-return]

        def training_step(self, batch: Any, index: int) -> Tensor:  # noqa: ARG002
            if self.fails:
                raise ArithmeticError("lost")
            if self.ended:
                os.kill(os.getpid(), signal.SIGTERM)
            loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
            self.log("train/loss", loss, on_epoch=True, on_step=False)
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    options = {
        "max_epochs": 2, "accelerator": "cpu", "logger": False, "enable_checkpointing": False,
        "enable_progress_bar": False, "enable_model_summary": False, "default_root_dir": tmp_path,
    }  # fmt: skip
    module = Module()
    trainer = lightning.Trainer(callbacks=[lightning_callback(recorder(tmp_path / "a"))], **options)
    trainer.fit(module, loader(0))
    run = the_run(tmp_path / "a")
    assert run.status == "FINISHED"
    assert [epoch for epoch, _ in run.curves()["train/loss"]] == [1, 2]
    expected = nc_tools.evaluate(module.cpu(), loader(0), loader(1), holdout=loader(2))
    assert run.final["test/gen/accuracy"] == pytest.approx(expected["test/gen/accuracy"])
    broken = lightning.Trainer(callbacks=[lightning_callback(recorder(tmp_path / "b"))], **options)
    with pytest.raises(ArithmeticError):
        broken.fit(Module(fails=True), loader(0))
    assert (the_run(tmp_path / "b").status, "lost" in the_run(tmp_path / "b").error) == ("FAILED", True)
    ended = lightning.Trainer(callbacks=[lightning_callback(recorder(tmp_path / "c"))], **options)
    with pytest.raises(SystemExit):
        ended.fit(Module(ended=True), loader(0))
    assert the_run(tmp_path / "c").status == "KILLED"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL  # neither Lightning nor the record leaves a handler


class Mappings(Dataset[Any]):
    def __init__(self, seed: int) -> None:
        self.pixels, self.labels = tensors(seed)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"pixel_values": self.pixels[index].expand(3, 4, 4).repeat(1, 4, 4), "labels": self.labels[index]}


@pytest.mark.filterwarnings("ignore")  # of transformers, about a machine without a GPU
@pytest.mark.slow
def test_a_training_of_the_hugging_face_trainer(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="the callback needs transformers")
    pytest.importorskip("accelerate", reason="the Trainer of transformers needs accelerate")
    torch.manual_seed(0)
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.ViTConfig(**small, image_size=16, patch_size=8, num_labels=3)
    model = transformers.ViTForImageClassification(config)
    loaders = [DataLoader(Mappings(seed), batch_size=16) for seed in (0, 1, 2)]
    made = LoopRecorder(root=tmp_path, arm="vit", seed=0, train=loaders[0], test=loaders[1], holdout=loaders[2])
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path / "hf"), num_train_epochs=2, per_device_train_batch_size=16, logging_steps=1,
        report_to=[], save_strategy="no", use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    transformers.Trainer(
        model=model, args=arguments, train_dataset=Mappings(0), callbacks=[trainer_callback(made)]
    ).train()
    run = the_run(tmp_path)
    assert run.status == "FINISHED"
    assert len(run.curves()["train/loss"]) >= 5
    expected = nc_tools.evaluate(model, loaders[0], loaders[1], holdout=loaders[2])
    assert run.final["test/gen/accuracy"] == pytest.approx(expected["test/gen/accuracy"])
    assert "train/nc/nc1_pinv" in run.final


@pytest.mark.parametrize(
    ("package", "make"), [("lightning.pytorch", lightning_callback), ("transformers", trainer_callback)]
)
def test_a_package_that_is_missing_is_named(
    package: str, make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=rf"needs {package.split('.')[0]}, which is not installed: pip install"):
        make(recorder(tmp_path))
