"""Losses that are built on the meta device, emptied or reset: their own numbers, never what the memory held."""

import torch
from support.loss_variants import D, K, N, batch_of, build, every_loss, outputs_for

from nc_tools.heads import ETFHead
from nc_tools.losses import LossTerm
from nc_tools.specs import Spec


def equal(a: LossTerm, b: LossTerm) -> bool:
    mine, theirs = ({**dict(x.named_buffers()), **dict(x.named_parameters())} for x in (a, b))
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def fill_free_memory() -> None:
    full = [torch.full((n,), float("nan")) for n in (1, K, D, K * K, K * D, 77 * K, 100 * K) * 3]
    del full


@every_loss
def test_memory_for_a_loss_holds_its_numbers(loss_spec: Spec[LossTerm]) -> None:
    expected = build(loss_spec)
    with torch.device("meta"):
        loss = build(loss_spec)
    fill_free_memory()
    for module in (loss.to_empty(device="cpu"), build(loss_spec).to_empty(device="cpu")):
        module.reset_parameters()
        assert equal(module, expected)


@every_loss
def test_reset_goes_back_to_the_loss_that_was_built(loss_spec: Spec[LossTerm]) -> None:
    loss, head = build(loss_spec), ETFHead(D, K)
    before = build(loss_spec)
    h = torch.randn(N, D, requires_grad=True)
    loss.set_progress(0.0)
    loss(outputs_for(loss, head, h), batch_of(torch.arange(N) % K)).backward()  # type: ignore[no-untyped-call]
    loss.reset_parameters()
    assert equal(loss, before)
