"""Feature extractors of torchvision and timm, on models with a swapped head: the head is one node."""

import pytest
import torch
import torchvision
from torch import fx, nn
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from nc_tools.heads import LEARNED, ETFHead
from nc_tools.specs import spec
from nc_tools.surgery import swap_head

HEAD = spec(ETFHead, projection=True, scale=LEARNED)
IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_torchvisions_extractor_returns_features_and_logits() -> None:
    model = torchvision.models.resnet18(num_classes=5).eval()
    swap_head(model, HEAD)
    assert get_graph_node_names(model)[0][-1] == "fc"
    parts = create_feature_extractor(model, {"flatten": "features", "fc": "logits"})(IMAGES)
    assert torch.equal(parts["logits"], model(IMAGES))
    assert torch.allclose(model.fc(parts["features"]), parts["logits"])


def test_timms_extractor_takes_a_model_with_a_swapped_head() -> None:
    timm = pytest.importorskip("timm", reason="timm is not installed")
    from timm.models._features_fx import FeatureGraphNet

    model = timm.create_model("test_resnet", num_classes=5).eval()
    swap_head(model, HEAD)
    model.feature_info = [{"num_chs": 5, "reduction": 32, "module": "fc"}]
    graph = FeatureGraphNet(model, out_indices=(0,))
    assert torch.allclose(graph(IMAGES)[0], model(IMAGES), atol=1e-6)


def test_a_graph_of_a_model_runs_the_head_with_its_hooks() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(8, 5))
    head = swap_head(model, HEAD)
    shapes: list[torch.Size] = []
    head.register_forward_hook(lambda _module, _inputs, logits: shapes.append(logits.shape))
    graph = fx.symbolic_trace(model)
    assert [node.target for node in graph.graph.nodes if node.op == "call_module"] == ["0", "1"]
    graph(torch.randn(3, 8)).sum().backward()
    assert shapes[-1] == (3, 5)
    assert head.projection.weight.grad is not None  # type: ignore[union-attr]
