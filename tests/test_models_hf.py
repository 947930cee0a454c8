"""Backbones of Hugging Face transformers from local folders: features, preprocessing, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from nc_tools.models import load_backbone

pytestmark = pytest.mark.slow

transformers = pytest.importorskip("transformers")

SMALL: dict[str, Any] = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
}  # fmt: skip


def vit(folder: Path) -> nn.Module:
    torch.manual_seed(0)
    config = transformers.ViTConfig(**SMALL, image_size=32, patch_size=8)
    return saved(transformers.ViTForImageClassification(config), processor(), folder)


def processor() -> Any:
    return transformers.ViTImageProcessor(size={"height": 32, "width": 32})


def saved(model: Any, images: Any, folder: Path) -> nn.Module:
    model.eval().save_pretrained(folder)
    images.save_pretrained(folder)
    return model  # type: ignore[no-any-return]


def photos() -> Tensor:
    grid = torch.rand(2, 3, 6, 8, generator=torch.Generator().manual_seed(0)) * 255
    return nn.functional.interpolate(grid, (50, 70), mode="bilinear").to(torch.uint8)


def test_features_are_the_input_of_the_librarys_classifier(tmp_path: Path) -> None:
    model = vit(tmp_path)
    loaded = load_backbone(f"hf:{tmp_path}", weights="pretrained")
    images = loaded.preprocessing(photos())
    with torch.no_grad():
        hidden = model.vit(images).last_hidden_state[:, 0]  # type: ignore[union-attr, operator]
        assert torch.allclose(loaded.module.eval()(images), hidden, atol=1e-6)
    assert loaded.feature_dim == 16


PROCESSORS = {
    "squashed": lambda: processor(),
    "cropped": lambda: transformers.BitImageProcessor(
        size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32}, image_mean=[0.4, 0.5, 0.6],
        image_std=[0.1, 0.2, 0.3],
    ),
    "clip": lambda: transformers.CLIPImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    ),
    "crop share": lambda: transformers.ConvNextImageProcessor(size={"shortest_edge": 32}),
    "other scale": lambda: transformers.ViTImageProcessor(size={"height": 32, "width": 32}, rescale_factor=1 / 127.5),
}  # fmt: skip


@pytest.mark.parametrize("kind", PROCESSORS)
def test_preprocessing_is_the_processors(kind: str, tmp_path: Path) -> None:
    vit(tmp_path)
    images = PROCESSORS[kind]()
    images.save_pretrained(tmp_path)
    ours = load_backbone(f"hf:{tmp_path}").preprocessing
    expected = images(list(photos()), return_tensors="pt")["pixel_values"]
    assert torch.allclose(ours(photos()), expected, atol=1e-5)


def test_other_image_sizes_interpolate_the_positions(tmp_path: Path) -> None:
    model = vit(tmp_path)
    loaded = load_backbone(f"hf:{tmp_path}", weights="pretrained", image_size=48)
    images = loaded.preprocessing(photos())
    assert images.shape[2:] == (48, 48)
    with torch.no_grad():
        hidden = model.vit(images, interpolate_pos_encoding=True).last_hidden_state[:, 0]  # type: ignore[union-attr, operator]
        assert torch.allclose(loaded.module.eval()(images), hidden, atol=1e-6)


def test_a_model_without_a_classifier_gives_its_pooled_features(tmp_path: Path) -> None:
    config = transformers.Dinov2Config(**SMALL, image_size=28, patch_size=14)
    torch.manual_seed(0)
    images = transformers.BitImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    model = saved(transformers.Dinov2Model(config), images, tmp_path)
    loaded = load_backbone(f"hf:{tmp_path}", weights="pretrained")
    pixels = loaded.preprocessing(photos())
    with torch.no_grad():
        hidden = model(pixels).last_hidden_state
        expected = torch.cat([hidden[:, 0], hidden[:, 1:].mean(1)], dim=1)
        assert torch.allclose(loaded.module.eval()(pixels), expected, atol=1e-6)


def test_a_file_of_weights_and_its_misfits(tmp_path: Path) -> None:
    vit(tmp_path / "a")
    torch.manual_seed(9)
    other = transformers.ViTForImageClassification(transformers.ViTConfig(**SMALL, image_size=32, patch_size=8))
    other.save_pretrained(tmp_path / "b")
    file = tmp_path / "b" / "model.safetensors"
    loaded = load_backbone(f"hf:{tmp_path / 'a'}", weights=file)
    key = "vit.layernorm.weight"
    assert torch.equal(loaded.module.state_dict()[f"model.{key}"], load_file(file)[key])
    state = load_file(file)
    del state[key]
    save_file(state, tmp_path / "cut.safetensors")
    with pytest.raises(ValueError, match=r"1 are missing or have another shape \(vit.layernorm.weight\)"):
        load_backbone(f"hf:{tmp_path / 'a'}", weights=tmp_path / "cut.safetensors")
    save_file(state, tmp_path / "a" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"hf:.* 1 are missing or have another shape \(vit.layernorm.weight\)"):
        load_backbone(f"hf:{tmp_path / 'a'}", weights="pretrained")


def test_weights_that_are_a_pickle_are_refused(tmp_path: Path) -> None:
    model = vit(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="no weights in safetensors format"):
        load_backbone(f"hf:{tmp_path}", weights="pretrained")


def test_code_of_a_repository_is_never_executed(tmp_path: Path) -> None:
    vit(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {
        "model_type": "mine",
        "auto_map": {"AutoConfig": "net.Mine", "AutoModelForImageClassification": "net.Model"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "net.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Mine: pass\nclass Model: pass\n")
    with pytest.raises(ValueError, match="Code of a repository is never executed"):
        load_backbone(f"hf:{tmp_path}", weights="pretrained")
    assert not (tmp_path / "ran").exists()


def test_a_folder_that_is_missing_or_incomplete(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is no folder"):
        load_backbone(f"hf:{tmp_path / 'none'}", weights="pretrained")
    vit(tmp_path)
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(ValueError, match="cannot be read"):
        load_backbone(f"hf:{tmp_path}", weights="pretrained")


def test_the_licence_of_a_local_card(tmp_path: Path) -> None:
    vit(tmp_path)
    assert load_backbone(f"hf:{tmp_path}", weights="pretrained").identity.licence is None
    (tmp_path / "README.md").write_text("---\nlanguage: en\nlicense: mit\n---\n# Model\n")
    assert load_backbone(f"hf:{tmp_path}", weights="pretrained").identity.licence == "mit"
