"""Heads as plain layers."""

import io
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.unequal_classes import D, K, sample
from torch import Tensor, nn

from nc_tools.heads import LEARNED, CosineHead, ETFHead, FrozenRandomHead, Head, LinearHead, ProxyHead
from nc_tools.surgery import to_linear

# Classes inside a function: the contract tests use every subclass that exists when they are collected.


def users_head(own_embed: bool = False, wrong: bool = False) -> Head:
    """A head as a user would write it, with a scale for each class."""

    class Users(Head):
        def __init__(self) -> None:
            super().__init__(D, K)
            self.weight = nn.Parameter(torch.randn(K, D))
            self.bias = nn.Parameter(torch.randn(K))
            self.scale = torch.arange(1.0, K + 1)

    class Embedding(Users):
        def embed(self, features: Tensor) -> Tensor:
            return nn.functional.gelu(features)

    class Wrong(Users):
        def compute_logits(self, embedded: Tensor) -> Tensor:
            return super().compute_logits(embedded).square()

    return Wrong() if wrong else Embedding() if own_embed else Users()


AFFINE = {
    "linear": lambda: LinearHead(D, K),
    "linear without bias": lambda: LinearHead(D, K, bias=False),
    "cosine": lambda: CosineHead(D, K),
    "ETF": lambda: ETFHead(D, K),
    "ETF, learned scale and projection": lambda: ETFHead(D, K, projection=9, scale=LEARNED),
    "ETF, projection alone": lambda: ETFHead(D, K, projection=True, normalize=False),
    "ETF on raw features": lambda: ETFHead(D, K, normalize=False, scale=2.0),
    "random": lambda: FrozenRandomHead(D, K),
    "a user's": users_head,
}
LAYERS = {
    "cosine": ["RMSNorm", "Linear"],
    "ETF": ["RMSNorm", "Linear"],
    "random": ["RMSNorm", "Linear"],
    "ETF, learned scale and projection": ["Linear", "RMSNorm", "Linear"],
}


@pytest.mark.parametrize("name", AFFINE)
@pytest.mark.parametrize("size", [1.0, 1e-6, 1e6])
def test_plain_layers_compute_the_logits_of_the_head(name: str, size: float) -> None:
    state = torch.get_rng_state()
    torch.manual_seed(0)
    head, features = AFFINE[name](), size * sample()[0]
    before = torch.get_rng_state()
    plain = to_linear(head)
    assert torch.equal(torch.get_rng_state(), before)
    torch.set_rng_state(state)
    assert torch.allclose(plain(features), head(features), rtol=1e-4, atol=1e-5 * max(size, 1))
    kinds = [type(m).__name__ for m in plain.modules() if not isinstance(m, nn.Sequential)]
    assert kinds == LAYERS.get(name, ["Linear"])
    assert torch.equal(torch.isfinite(plain(torch.zeros(2, D))), torch.ones(2, K, dtype=torch.bool))


@pytest.mark.parametrize("name", [n for n in AFFINE if n != "a user's"])
def test_plain_layers_pickle_without_a_trace_of_nc_tools(name: str) -> None:
    plain = to_linear(AFFINE[name]())
    assert all(type(m).__module__.startswith("torch.nn.modules") for m in plain.modules())
    assert b"nc_tools" not in pickle.dumps(plain)


@pytest.mark.slow
def test_plain_layers_load_without_nc_tools(tmp_path: Path) -> None:
    head, features = ETFHead(D, K, projection=9, scale=LEARNED), sample()[0]
    torch.save(to_linear(head), tmp_path / "plain.pt")
    torch.save((features, head(features).detach()), tmp_path / "expected.pt")
    code = (
        "import sys, torch\n"
        "sys.modules['nc_tools'] = None\n"  # an import of it is an ImportError
        "features, expected = torch.load('expected.pt')\n"
        "plain = torch.load('plain.pt', weights_only=False)\n"
        "assert torch.allclose(plain(features), expected, atol=1e-5)\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)


def test_plain_layers_are_copies_on_the_heads_device_and_of_its_type() -> None:
    head = LinearHead(D, K).to(torch.bfloat16).eval()
    plain = to_linear(head)
    assert isinstance(plain, nn.Linear)
    assert not plain.training
    assert plain.weight.dtype == torch.bfloat16
    assert torch.equal(plain.weight, head.weight)
    with torch.no_grad():
        head.weight.zero_()
    assert plain.weight.any()
    with torch.device("meta"):
        meta = ETFHead(D, K, projection=9)
    assert {p.device.type for p in to_linear(meta).parameters()} == {"meta"}
    assert to_linear(CosineHead(D, K).double())(torch.randn(2, D).double()).dtype == torch.float64


def test_a_users_embedding_is_given_as_layers_and_checked() -> None:
    head, features = users_head(own_embed=True), sample()[0]
    with pytest.raises(TypeError, match=r"Embedding has its own embed method.*embed=nn\.Sequential"):
        to_linear(head)
    assert torch.allclose(to_linear(head, embed=nn.GELU())(features), head(features), atol=1e-5)
    with pytest.raises(ValueError, match=r"Embedding must compute scale \* embed\(features\) @ weight\.T.*differ"):
        to_linear(head, embed=nn.ReLU())


def test_heads_that_are_not_affine_or_compute_something_else_raise() -> None:
    with pytest.raises(TypeError, match=r"ProxyHead is not affine.*Export the head itself"):
        to_linear(ProxyHead(D, K))
    with pytest.raises(ValueError, match="Wrong must compute"):
        to_linear(users_head(wrong=True))
    with pytest.raises(TypeError, match="to_linear needs a Head, got Linear"):
        to_linear(nn.Linear(D, K))  # type: ignore[arg-type]


def test_a_swapped_model_is_served_with_plain_layers() -> None:
    from nc_tools.specs import spec
    from nc_tools.surgery import swap_head

    model = nn.Sequential(nn.Linear(5, D), nn.ReLU(), nn.Linear(D, K))
    swap_head(model, spec(ETFHead, projection=9))
    x = torch.randn(3, 5)
    expected = model(x)
    model[2] = to_linear(model[2])  # type: ignore[arg-type]
    assert torch.allclose(model(x), expected, atol=1e-5)
    buffer = io.BytesIO()
    torch.save(model, buffer)
    assert b"nc_tools" not in buffer.getvalue()
