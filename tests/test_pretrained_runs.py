"""Runs with pretrained and own networks: what the network gets, what is recorded, what is restored."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from support.experiment_runs import config_of, job_of, make
from torch import Tensor, nn

from nc_tools._support.signals import StopSignal
from nc_tools.cli import main
from nc_tools.experiment import ModelConfig, Protocol, RunConfig, load_run
from nc_tools.experiment.recipe_cli import recipe_parser
from nc_tools.experiment.recipe_plan import make_plan
from nc_tools.experiment.run_backbone import frozen_backbone, new_backbone
from nc_tools.experiment.run_data import RunData, open_data
from nc_tools.experiment.run_job import run_job
from nc_tools.models import ImagePreprocessing, factory_name
from nc_tools.run_records import read_run
from nc_tools.specs import spec

pytestmark = pytest.mark.slow

timm = pytest.importorskip("timm")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    path: Path = tmp_path_factory.mktemp("weights") / "resnet10t.safetensors"
    save_file(timm.create_model("resnet10t", num_classes=5).state_dict(), path)
    return path


def pretrained(arm: str, weights: Path, **model: Any) -> RunConfig:
    network = ModelConfig(name="timm:resnet10t", weights=str(weights), image_size=24, **model)
    return replace(config_of(arm), model=network)


def data_of(config: RunConfig, cache: Path = Path("unused")) -> RunData:
    return open_data(config, seed=0, device=torch.device("cpu"), cache=cache)


@pytest.fixture(scope="module")
def final(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Path:
    root = tmp_path_factory.mktemp("runs")
    result, _ = make(job_of(root, "final", "etf", config=pretrained("etf", weights, train="last:1")))
    assert result.run is not None
    return result.run  # type: ignore[no-any-return]


def test_the_network_gets_the_images_that_its_weights_expect(weights: Path) -> None:
    """Digits of 8 x 8 gray pixels become 24 x 24 with three channels, normalized as ImageNet was."""
    data = data_of(pretrained("linear", weights))
    batch = next(iter(data.plain_batches(data.sources.test)))
    pixels = data.sources.test.take(torch.arange(3))
    resized = [np.asarray(Image.fromarray(p[0].numpy()).resize((27, 27), Image.Resampling.BICUBIC)) for p in pixels]
    large = torch.from_numpy(np.stack(resized))[:, None, 2:26, 2:26].float()
    mean, std = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    expected = (large.expand(-1, 3, -1, -1) / 255 - mean) / std
    assert batch.inputs.shape[1:] == (3, 24, 24)
    assert float((batch.inputs[:3] - expected).abs().max()) < 2 / 255 / 0.224
    training = next(iter(data.training_batches(data.subsets.fit).epoch(0)))
    assert training.inputs.shape[1:] == (3, 24, 24)


def test_the_record_says_what_the_network_was(final: Path, weights: Path) -> None:
    data = json.loads((final / "run.json").read_text())["data"]
    assert data["preprocessing"]["size"] == 24
    assert data["preprocessing"]["mean"] == [0.485, 0.456, 0.406]
    assert data["backbone"]["name"] == "timm:resnet10t"
    assert data["backbone"]["weights"] == weights.name
    assert len(data["backbone"]["sha256"]) == 64


def test_only_the_last_block_has_moved(final: Path, weights: Path) -> None:
    after, before = load_file(final / "weights.safetensors"), load_file(weights)
    names = [n for n in before if not n.startswith("fc.")]
    moved = {n for n in names if not torch.equal(after[f"backbone.module.{n}"], before[n])}
    assert moved
    assert all(n.startswith("layer4.0.") for n in moved)
    assert not any("running" in n for n in moved)  # a small set: batch statistics stay those of the weights


def test_a_run_is_restored_without_the_weights_file_and_predicts_the_same(
    final: Path, weights: Path, tmp_path: Path
) -> None:
    hidden = weights.rename(tmp_path / "moved.safetensors")
    try:
        loaded = load_run(final)
    finally:
        hidden.rename(weights)
    data = data_of(pretrained("etf", weights))
    recorded = load_file(final / "predictions.safetensors")["test_logits"]
    pixels = data.sources.test.take(torch.arange(len(data.sources.test)))
    assert torch.allclose(loaded.predict(pixels), recorded, atol=1e-5)
    larger = pixels.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert loaded.predict(larger[:4]).shape == (4, loaded.facts.num_classes)


def test_other_weights_are_another_run(weights: Path, tmp_path: Path) -> None:
    state = load_file(weights)
    config = pretrained("linear", tmp_path / "w.safetensors", train="head")
    ids = []
    for change in (0.0, 0.0, 1e-3):
        state["conv1.0.weight"] = state["conv1.0.weight"] + change
        save_file(state, tmp_path / "w.safetensors")
        ids.append(make(job_of(tmp_path, "tuning", config=config))[0])
    assert ids[0].run == ids[1].run != ids[2].run
    assert ids[1].earlier


def test_early_stopping_uses_the_best_epoch_everywhere(tmp_path: Path) -> None:
    config = config_of("linear", patience=1)
    config = replace(config, training=replace(config.training, epochs=30), optim=replace(config.optim, lr=0.3))
    tuning, _ = make(job_of(tmp_path, "tuning", config=config))
    holdout, _ = make(job_of(tmp_path, "holdout", config=config))
    curve = read_run(holdout.run).curves()["holdout/gen/balanced_accuracy"]
    best = max(curve, key=lambda point: (point[1], -point[0]))
    assert len(curve) == best[0] + 1 < 30
    assert holdout.score == tuning.score == pytest.approx(best[1])
    assert read_run(holdout.run).final["best/epoch"] == best[0]
    final, progress = make(job_of(tmp_path, "final", config=config, holdout_run=holdout.run))
    assert progress[-1].done == best[0]
    values = read_run(final.run).final
    assert values["test/gen/accuracy"] == pytest.approx(values["best/gen/accuracy"])
    for result in (tuning, holdout, final):
        assert not list(result.run.glob("stopped*"))


def test_a_stopped_run_with_early_stopping_is_continued(tmp_path: Path) -> None:
    config = config_of("linear", patience=2, checkpoint_seconds=0.0)
    config = replace(config, training=replace(config.training, epochs=30), optim=replace(config.optim, lr=0.3))
    whole, _ = make(job_of(tmp_path / "a", "holdout", config=config))
    stop = StopSignal()

    def interrupt(progress: Any) -> None:
        stop.requested = progress.done == 2

    assert run_job(job_of(tmp_path / "b", "holdout", config=config), interrupt, stop).status == "KILLED"
    resumed, _ = make(job_of(tmp_path / "b", "holdout", config=config, resume=True))
    assert read_run(resumed.run).curves() == read_run(whole.run).curves()
    assert resumed.score == whole.score


def test_early_stopping_and_a_second_stage_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="a second stage would change again"):
        config_of("linear_crt", patience=3)


class TinyNet(nn.Module):
    """A backbone of a user's own, with an argument."""

    def __init__(self, in_channels: int, width: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, width, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images).relu().mean((2, 3))


class ColorNet(TinyNet):
    """A backbone that says what its images look like."""

    preprocessing = ImagePreprocessing(mean=(0.5,) * 3, std=(0.5,) * 3, size=12, resize_size=12)

    def __init__(self) -> None:
        super().__init__(3, 6)


def make_color_net() -> nn.Module:
    return ColorNet()


def import_me() -> Any:
    import sys

    return sys.modules[__name__]


@pytest.mark.parametrize(
    "model",
    [
        ModelConfig(network=spec(TinyNet, width=5)),
        ModelConfig(network=spec(ColorNet)),
        ModelConfig(name=factory_name(make_color_net)),
    ],
    ids=["class", "class with preprocessing", "function"],
)
def test_own_networks_are_arms_and_are_named_again_to_be_loaded(model: ModelConfig, tmp_path: Path) -> None:
    config = replace(config_of("linear"), model=model)
    result, _ = make(job_of(tmp_path, "final", config=config))
    assert result.run is not None
    with pytest.raises(ValueError, match=r"pass (its|the) module"):
        load_run(result.run)
    loaded = load_run(result.run, modules=[import_me()])
    data = data_of(config)
    pixels = data.sources.test.take(torch.arange(20))
    recorded = load_file(result.run / "predictions.safetensors")["test_logits"][:20]
    assert torch.allclose(loaded.predict(pixels), recorded, atol=1e-5)


def test_a_function_named_by_a_record_is_never_called(tmp_path: Path) -> None:
    config = replace(config_of("linear"), model=ModelConfig(name=f"{__name__}:make_color_net"))
    result, _ = make(job_of(tmp_path, "final", config=config))
    assert result.run is not None
    path = result.run / "run.json"
    path.write_text(path.read_text().replace(f"{__name__}:make_color_net", "os:getcwd"))
    with pytest.raises(ValueError, match="a file never decides which code runs"):
        load_run(result.run, modules=[import_me()])


def test_a_hugging_face_network_is_restored_from_the_runs_folder(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    transformers.ViTForImageClassification(
        transformers.ViTConfig(**small, image_size=32, patch_size=8)
    ).save_pretrained(tmp_path / "vit")
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "vit")
    model = ModelConfig(name=f"hf:{tmp_path / 'vit'}", weights="pretrained", image_size=16, train="last:1")
    config = replace(config_of("linear"), model=model)
    result, _ = make(job_of(tmp_path, "final", config=config))
    assert result.run is not None
    data = data_of(config)
    (tmp_path / "vit").rename(tmp_path / "gone")
    pixels = data.sources.test.take(torch.arange(20))
    recorded = load_file(result.run / "predictions.safetensors")["test_logits"][:20]
    assert torch.allclose(load_run(result.run).predict(pixels), recorded, atol=1e-5)


def test_a_hugging_face_network_without_weights_is_random_and_never_frozen(tmp_path: Path) -> None:
    """Features of random weights, under the name of a pretrained network, would be taken for its own."""
    transformers = pytest.importorskip("transformers")
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    transformers.ViTForImageClassification(
        transformers.ViTConfig(**small, image_size=32, patch_size=8)
    ).save_pretrained(tmp_path)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    for part in ("head", "last:1"):
        with pytest.raises(ValueError, match=r"keeps layers as they are, but 'hf:.*' has random weights: give"):
            ModelConfig(name=f"hf:{tmp_path}", train=part)  # type: ignore[arg-type]
    model = ModelConfig(name=f"hf:{tmp_path}")
    with pytest.raises(ValueError, match=r"features come from a pretrained network, but 'hf:.*' has random weights"):
        frozen_backbone(model, in_channels=3, image_size=32, mean=(0.5,), std=(0.5,))
    firsts = [
        next(new_backbone(model, in_channels=3, image_size=32, num_samples=9, seed=seed).parameters())
        for seed in (0, 0, 1)
    ]
    assert torch.equal(firsts[0], firsts[1])
    assert not torch.equal(firsts[0], firsts[2])


def test_low_rank_additions_are_saved_and_restored(weights: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="LoRA needs peft")
    config = pretrained("etf_la", weights, train="lora:2")
    result, _ = make(job_of(tmp_path, "final", config=config))
    assert result.run is not None
    named = json.loads((result.run / "run.json").read_text())["data"]["backbone"]["lora_layers"]
    assert "layer1.0.conv1" in named
    stored = load_file(result.run / "weights.safetensors")
    assert any("lora_B" in name and float(value.abs().sum()) > 0 for name, value in stored.items())
    data = data_of(config)
    recorded = load_file(result.run / "predictions.safetensors")["test_logits"][:20]
    assert torch.allclose(load_run(result.run).predict(data.sources.test.take(torch.arange(20))), recorded, atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_size": 32}, "model.image_size is for pretrained networks"),
        ({"train": "head"}, "'conv' has random weights: give model.weights"),
        ({"weights": ""}, "must be 'pretrained', a file or None"),
        ({"name": "timm:resnet10t", "weights": "w", "crop_fraction": 2.0}, "above 0 and at most 1"),
    ],
)
def test_settings_of_a_network_that_contradict_each_other(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelConfig(**fields)


def test_a_factory_inside_a_function_cannot_be_named() -> None:
    def inner() -> nn.Module:
        return nn.Identity()

    assert factory_name(make_color_net) == f"{__name__}:make_color_net"
    with pytest.raises(ValueError, match="must stand at the top level of a module"):
        factory_name(inner)


def test_measure_gives_a_pretrained_network_the_images_that_the_run_gave_it(final: Path, tmp_path: Path) -> None:
    main(["measure", "--model", str(final), "--layers", "none", "--device", "cpu", "--out", str(tmp_path)])
    (report,) = tmp_path.glob("*.json")
    measured, recorded = json.loads(report.read_text()), read_run(final).final
    sets = {name: part["values"] for name, part in measured["sets"].items()}
    assert sets["test"]["accuracy"] == pytest.approx(recorded["test/gen/accuracy"], abs=1e-6)
    assert sets["train"]["nc/nc1_pinv"] == pytest.approx(recorded["train/nc/nc1_pinv"], rel=1e-3)


def test_files_give_the_network_what_its_own_transform_gives(tmp_path: Path, weights: Path) -> None:
    """From a file that is larger than the network's input to the input: ours and timm's.

    The file is square: of others timm rounds the longer side to whole pixels, and we crop before we resize.
    """
    from timm.data import create_transform, resolve_data_config

    grid = torch.rand(1, 3, 6, 8, generator=torch.Generator().manual_seed(0)) * 255
    photo = nn.functional.interpolate(grid, (330, 330), mode="bicubic").clamp(0, 255).to(torch.uint8)[0]
    picture = Image.fromarray(photo.permute(1, 2, 0).numpy())
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(3):
                picture.rotate(i).save(tmp_path / part / name / f"{i}.png")
    flags = ["--data", f"imagefolder:{tmp_path}", "--model", "timm:resnet10t", "--weights", str(weights)]
    args = recipe_parser("x", "", []).parse_args([*flags, "--image-size", "64"])
    plan = make_plan({"linear": config_of("linear")}, name="x", question="", protocol=Protocol(), args=args)
    config = plan.arms["linear"]
    assert (config.data.size_limit, config.data.interpolation) == (73, "bicubic")
    data = data_of(config, tmp_path / "cache")
    batch = next(iter(data.plain_batches(data.sources.test)))
    settings = resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg("resnet10t").to_dict())
    reference = create_transform(**settings | {"input_size": (3, 64, 64)}, is_training=False)
    assert data.sources.test.paths is not None
    for row, path in enumerate(data.sources.test.paths):
        with Image.open(tmp_path / path) as file:
            difference = (batch.inputs[row] - reference(file.convert("RGB"))).abs()
        assert float(difference.mean()) < 0.01
        assert float(difference.max()) < 0.1
