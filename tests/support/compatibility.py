"""Which heads work with which ways to save, wrap, trace and shard a model: found by trying, and written as a page.

A cell is "works" only if the logits were compared after saving and loading in another process, or the weights after a
step. "refused" is an error with a sentence that says why; "-" is a way that does not concern the head. Anything else is
a fault. ``PYTHONPATH=.:tests python -m support.compatibility`` writes docs/compatibility.md.
"""

import copy
import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file, save_file
from torch import Tensor, fx, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from nc_tools.heads import Head
from nc_tools.surgery import swap_head, to_linear
from support.swapped_heads import CLASSES, D, K, backbone, head_of, head_spec, images, labels, seeded, swapped
from support.two_processes import in_two_processes

PAGE = Path(__file__).parents[2] / "docs" / "compatibility.md"
Cells = dict[str, dict[str, str]]  # of each way, of each head
WORKS, REFUSED, NOT_APPLICABLE = "works", "refused", "-"
# What the tests accept as a refusal: sentences of nc_tools that say what to do instead.
REFUSALS = (
    "to_linear needs an affine head",
    "has its own embed method, which to_linear cannot convert",
    "from_pretrained would put a random nn.Linear in place of",
)


class NotConcernedError(Exception):
    """The way does not concern this head."""


def cell(attempt: Callable[[], object]) -> str:
    """Return what the attempt shows; any error but a refusal is a fault, and is passed on."""
    try:
        attempt()
    except NotConcernedError:
        return NOT_APPLICABLE
    except (ValueError, TypeError, RuntimeError) as error:
        if not any(sentence in str(error) for sentence in REFUSALS):
            raise
        return REFUSED
    return WORKS


def trained(cls: type[Head], seed: int = 0) -> nn.Sequential:
    """Return a small model after a step, so that its weights are not those that a seed draws."""
    model = swapped(cls, seed)
    one_step(model, model)
    return model.eval()


def one_step(called: Any, model: nn.Module, part: slice = slice(None)) -> nn.Module:
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    cross_entropy(called(images()[part]), labels()[part]).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    optimizer.zero_grad()
    return model


# Ways to save: each writes a folder, which another process reads into a model of another seed.

VIT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


def vit_class(cls: type[Head], seed: int) -> Any:
    import transformers

    class Model(transformers.ViTForImageClassification):  # type: ignore[misc, name-defined]
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            swap_head(self, head_spec(cls, seed), name="classifier", generator=seeded(seed))

    return Model


def vit_config() -> Any:
    import transformers

    return transformers.ViTConfig(**VIT, image_size=8, patch_size=4, num_labels=5)


def vit(cls: type[Head], seed: int) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return vit_class(cls, seed)(vit_config()).eval()


def adapter(cls: type[Head], seed: int) -> Any:
    import peft
    import transformers

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.ViTForImageClassification(vit_config())
    swap_head(model, head_spec(cls, seed), name="classifier", generator=seeded(seed))
    return peft, model


def save_pickle(cls: type[Head], folder: Path) -> Tensor:
    model = trained(cls)
    torch.save(model, folder / "model.pt")
    return model(images())  # type: ignore[no-any-return]


def load_pickle(cls: type[Head], folder: Path) -> Tensor:
    return torch.load(folder / "model.pt", weights_only=False)(images())  # type: ignore[no-any-return]


def save_torch(cls: type[Head], folder: Path) -> Tensor:
    model = trained(cls)
    torch.save(model.state_dict(), folder / "model.pt")
    return model(images())  # type: ignore[no-any-return]


def load_state(cls: type[Head], state: dict[str, Tensor]) -> Tensor:
    model = swapped(cls, seed=3).eval()
    model.load_state_dict(state)
    return model(images())  # type: ignore[no-any-return]


def load_torch(cls: type[Head], folder: Path) -> Tensor:
    return load_state(cls, torch.load(folder / "model.pt", weights_only=True))


def save_safetensors(cls: type[Head], folder: Path) -> Tensor:
    model = trained(cls)
    save_file(model.state_dict(), folder / "model.safetensors")
    return model(images())  # type: ignore[no-any-return]


def load_safetensors(cls: type[Head], folder: Path) -> Tensor:
    return load_state(cls, load_file(folder / "model.safetensors"))


def save_distributed(cls: type[Head], folder: Path) -> Tensor:
    model = trained(cls)
    dcp.save(model.state_dict(), checkpoint_id=str(folder / "dcp"), no_dist=True)
    return model(images())  # type: ignore[no-any-return]


def load_distributed(cls: type[Head], folder: Path) -> Tensor:
    state = swapped(cls, seed=3).state_dict()
    dcp.load(state, checkpoint_id=str(folder / "dcp"), no_dist=True)
    return load_state(cls, state)


def save_dispatched(cls: type[Head], folder: Path) -> Tensor:
    return save_safetensors(cls, folder)


def load_dispatched(cls: type[Head], folder: Path) -> Tensor:
    import accelerate

    with accelerate.init_empty_weights():
        values = {"feature_dim": D, "num_classes": K, "generator": seeded(3)}
        model = nn.Sequential(backbone(3), head_spec(cls, 3).build(values)).eval()
    file = str(folder / "model.safetensors")
    loaded: Any = accelerate.load_checkpoint_and_dispatch(model, file, device_map={"": "cpu"})
    return loaded(images())  # type: ignore[no-any-return]


def save_hugging_face(cls: type[Head], folder: Path) -> Tensor:
    model = vit(cls, 0)
    model.save_pretrained(folder)
    return model(images()).logits  # type: ignore[no-any-return]


def load_hugging_face(cls: type[Head], folder: Path) -> Tensor:
    return vit_class(cls, 3).from_pretrained(folder).eval()(images()).logits  # type: ignore[no-any-return]


def save_stock_class(cls: type[Head], folder: Path) -> Tensor:
    adapter(cls, 0)[1].save_pretrained(folder)
    raise AssertionError("a class that does not build the head was saved")


def save_adapter(cls: type[Head], folder: Path) -> Tensor:
    peft, model = adapter(cls, 0)
    settings = peft.LoraConfig(target_modules=["q_proj"], modules_to_save=["classifier"])
    wrapped = peft.get_peft_model(model, settings)
    wrapped.eval().save_pretrained(folder)
    return wrapped(images()).logits  # type: ignore[no-any-return]


def load_adapter(cls: type[Head], folder: Path) -> Tensor:
    peft, model = adapter(cls, 3)
    return peft.PeftModel.from_pretrained(model, folder).eval()(images()).logits  # type: ignore[no-any-return]


def save_exported(cls: type[Head], folder: Path) -> Tensor:
    model = trained(cls)
    torch.export.save(torch.export.export(model, (images(),)), folder / "model.pt2")
    return model(images())  # type: ignore[no-any-return]


def load_exported(cls: type[Head], folder: Path) -> Tensor:
    del cls
    return torch.export.load(folder / "model.pt2").module()(images())  # type: ignore[no-any-return]


def save_traced(cls: type[Head], folder: Path) -> Tensor:
    model = trained(cls)
    torch.jit.save(torch.jit.trace(model, (images(),)), folder / "model.pt")  # type: ignore[no-untyped-call]
    return model(images())  # type: ignore[no-any-return]


def load_traced(cls: type[Head], folder: Path) -> Tensor:
    del cls
    return torch.jit.load(folder / "model.pt")(images())  # type: ignore[no-any-return, no-untyped-call]


def save_plain(cls: type[Head], folder: Path) -> Tensor:
    model = trained(cls)
    plain = to_linear(head_of(model))
    torch.save({"body": model[0].state_dict(), "head": plain}, folder / "model.pt")
    return model(images())  # type: ignore[no-any-return]


def load_plain(cls: type[Head], folder: Path) -> Tensor:
    parts = torch.load(folder / "model.pt", weights_only=False)
    model = swapped(cls, seed=3).eval()
    model[0].load_state_dict(parts["body"])
    model[1] = parts["head"]
    return model(images())  # type: ignore[no-any-return]


SAVED: dict[str, tuple[Callable[[type[Head], Path], Tensor], Callable[[type[Head], Path], Tensor]]] = {
    "torch.save of the state dict": (save_torch, load_torch),
    "torch.save of the model": (save_pickle, load_pickle),
    "safetensors": (save_safetensors, load_safetensors),
    "distributed checkpoint": (save_distributed, load_distributed),
    "accelerate, init_empty_weights and dispatch": (save_dispatched, load_dispatched),
    "Hugging Face, a class that swaps": (save_hugging_face, load_hugging_face),
    "Hugging Face, the stock class": (save_stock_class, load_hugging_face),
    "PEFT adapter, modules_to_save": (save_adapter, load_adapter),
    "to_linear": (save_plain, load_plain),
    "torch.export": (save_exported, load_exported),
    "torch.jit.trace": (save_traced, load_traced),
}


@torch.no_grad()
def saved(folder: Path) -> Cells:
    """Save all heads in all ways, load them in one other process, and compare the logits."""
    cells: Cells = {way: {} for way in SAVED}
    expected: dict[str, Tensor] = {}
    for way, (save, _) in SAVED.items():
        if not all(find_spec(package) for package in PACKAGES.get(way, ())):
            del cells[way]
            continue
        for cls in CLASSES:
            place = _place(folder, way, cls)
            place.mkdir(parents=True)

            def attempt(save: Any = save, cls: Any = cls, place: Path = place) -> None:
                with torch.enable_grad():
                    expected[str(place)] = save(cls, place).detach()

            cells[way][cls.__name__] = cell(attempt)
    todo = [(way, cls.__name__) for way in cells for cls in CLASSES if cells[way][cls.__name__] == WORKS]
    (folder / "todo.json").write_text(json.dumps(todo))
    command = [sys.executable, "-W", "ignore", "-m", "support.compatibility", "load", str(folder)]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
    logits = load_file(folder / "logits.safetensors")
    for way, name in todo:
        key = f"{way}/{name}"
        place = folder / _slug(way) / name
        assert torch.allclose(logits[key], expected[str(place)], atol=1e-4), key
    return cells


@torch.no_grad()
def load_all(folder: Path) -> None:
    """In the other process: load what was saved, and write the logits."""
    by_name = {cls.__name__: cls for cls in CLASSES}
    logits = {}
    for way, name in json.loads((folder / "todo.json").read_text()):
        logits[f"{way}/{name}"] = SAVED[way][1](by_name[name], folder / _slug(way) / name).contiguous()
    save_file(logits, folder / "logits.safetensors")


def _slug(way: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in way)


def _place(folder: Path, way: str, cls: type[Head]) -> Path:
    return folder / _slug(way) / cls.__name__


# Wrappers and tracers: a step through them moves the weights as a step without them.


@cache
def after_a_step(cls: type[Head]) -> nn.Module:
    model = swapped(cls).eval()  # batch statistics would differ between one process and two
    return one_step(model, model)


def same_weights(model: nn.Module, expected: nn.Module, atol: float = 1e-5) -> None:
    state, other = model.state_dict(), expected.state_dict()
    assert state.keys() == other.keys(), set(state) ^ set(other)
    for name, value in other.items():
        assert torch.allclose(state[name].float(), value.float(), atol=atol), name


def compiled(cls: type[Head]) -> None:
    torch._dynamo.reset()
    model = swapped(cls).eval()
    # The graph is made here; test_keeps_working_graphs.py takes that of all heads through the rest of the compiler.
    one_step(torch.compile(model, backend="eager", fullgraph=True), model)
    same_weights(model, after_a_step(cls))


def with_fx(cls: type[Head]) -> None:
    model = swapped(cls).eval()
    one_step(fx.symbolic_trace(model), model)
    same_weights(model, after_a_step(cls))


def with_extractor(cls: type[Head]) -> None:
    from torchvision.models.feature_extraction import create_feature_extractor

    model = swapped(cls).eval()
    extractor = create_feature_extractor(model, {"1": "logits"})
    assert torch.allclose(extractor(images())["logits"], model(images()), atol=1e-6)
    one_step(lambda x: extractor(x)["logits"], extractor)
    expected = after_a_step(cls)
    for name, value in dict(extractor.named_parameters()).items():
        assert torch.allclose(value, dict(expected.named_parameters())[name], atol=1e-5), name


def with_half_precision(cls: type[Head]) -> None:
    model, expected = swapped(cls).eval(), after_a_step(cls)
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    with torch.autocast("cpu", torch.float16):
        loss = cross_entropy(model(images()), labels())
    scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    scaler.step(optimizer)
    scaler.update()
    same_weights(model, expected, atol=0.02)
    assert any(not torch.equal(value, before[name]) for name, value in model.state_dict().items())


def with_average(cls: type[Head]) -> None:
    model = swapped(cls).eval()
    average = AveragedModel(model, use_buffers=True)
    for _ in range(2):
        one_step(model, model)
        average.update_parameters(model)
    first = after_a_step(cls).state_dict()
    second = dict(model.state_dict())
    for name, value in average.module.state_dict().items():
        mean = (first[name].double() + second[name].double()) / 2
        assert torch.allclose(value.double(), mean, atol=1e-5), name


def with_accelerate(cls: type[Head]) -> None:
    import accelerate

    model = swapped(cls).eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    accelerator = accelerate.Accelerator(cpu=True)
    wrapped, prepared = accelerator.prepare(model, optimizer)
    accelerator.backward(cross_entropy(wrapped(images()), labels()))
    prepared.step()
    same_weights(accelerator.unwrap_model(wrapped), after_a_step(cls))


def with_quantization(cls: type[Head]) -> None:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    model = trained(cls)
    expected = model(images())
    if not any(isinstance(module, nn.Linear) for module in model.modules()):
        raise NotConcernedError
    quantize_(model, Int8WeightOnlyConfig())
    error = (model(images()) - expected).abs().max() / expected.abs().max()
    assert 0 < float(error) < 0.1, float(error)


WRAPPED: dict[str, Callable[[type[Head]], None]] = {
    "torch.fx.symbolic_trace": with_fx,
    "torchvision create_feature_extractor": with_extractor,
    "torch.compile, one graph": compiled,
    "autocast float16 and GradScaler": with_half_precision,
    "AveragedModel with buffers": with_average,
    "accelerate prepare": with_accelerate,
    "torchao int8 weights": with_quantization,
}
# Packages that a way needs: without them its column is left out when the page is compared.
PACKAGES = {
    "accelerate, init_empty_weights and dispatch": ("accelerate",),
    "accelerate prepare": ("accelerate",),
    "Hugging Face, a class that swaps": ("transformers",),
    "Hugging Face, the stock class": ("transformers",),
    "PEFT adapter, modules_to_save": ("transformers", "peft"),
    "torchao int8 weights": ("torchao",),
}


def wrapped_cells() -> Cells:
    return {
        way: {cls.__name__: cell(partial(attempt, cls)) for cls in CLASSES}
        for way, attempt in WRAPPED.items()
        if all(find_spec(package) for package in PACKAGES.get(way, ()))
    }


# Sharders: a step of two processes, each with half of the batch, moves the weights as a step of one.


def _wrap(model: nn.Sequential, way: str, mesh: Any) -> nn.Module:
    if way == "DistributedDataParallel":
        return DistributedDataParallel(model)
    if way == "FullyShardedDataParallel":
        return FullyShardedDataParallel(model, device_id=torch.device("cpu"), use_orig_params=True)
    parts: list[nn.Module] = []
    if "blocks" in way:
        parts = [model[0], model[1]] if any(True for _ in model[1].parameters()) else [model[0]]
    elif "leaves" in way:
        parts = [m for m in model.modules() if not list(m.children()) and list(m.parameters(recurse=False))]
    for part in parts:
        fully_shard(part, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def _full_state(wrapped: nn.Module, way: str) -> dict[str, Tensor]:
    if way == "FullyShardedDataParallel":
        with FullyShardedDataParallel.summon_full_params(wrapped):
            return {
                name.removeprefix("_fsdp_wrapped_module."): value.detach().clone()
                for name, value in [*wrapped.named_parameters(), *wrapped.named_buffers()]
            }
    state = wrapped.module.state_dict() if isinstance(wrapped, DistributedDataParallel) else wrapped.state_dict()
    return {name: value.full_tensor() if hasattr(value, "full_tensor") else value for name, value in state.items()}


SHARDED = (
    "DistributedDataParallel", "FullyShardedDataParallel", "fully_shard, root", "fully_shard, blocks and root",
    "fully_shard, leaves and root",
)  # fmt: skip


def _worker(rank: int, folder: str) -> None:
    warnings.simplefilter("ignore")
    mesh = init_device_mesh("cpu", (2,))
    cells: Cells = {way: {} for way in SHARDED}
    for way in SHARDED:
        for cls in CLASSES:

            def attempt(way: str = way, cls: type[Head] = cls) -> None:
                # Each rank has another frame until DDP sends those of the first; FSDP sends nothing.
                model = swapped(cls, seed=rank if way == "DistributedDataParallel" else 0).eval()
                wrapped = _wrap(model, way, mesh)
                one_step(wrapped, wrapped, slice(rank, None, 2))
                state = _full_state(wrapped, way)
                for name, value in after_a_step(cls).state_dict().items():
                    if name in state:  # FSDP without a state dict names parameters and buffers only
                        assert torch.allclose(state[name].float(), value.float(), atol=1e-5), (way, cls, name)
                assert {n for n, _ in model.named_buffers()} | state.keys() >= set(after_a_step(cls).state_dict())

            cells[way][cls.__name__] = cell(attempt)
    (Path(folder) / f"cells-{rank}.json").write_text(json.dumps(cells))


def sharded(folder: Path) -> Cells:
    """Make a step of two processes for all heads in all ways, and compare the weights with a step of one."""
    in_two_processes(_worker, str(folder))
    first, second = (json.loads((folder / f"cells-{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    return dict(first)


TITLES = {"Save and load": SAVED, "Wrap and trace": WRAPPED, "Distribute": SHARDED}


def page(cells: Cells) -> str:
    """Return docs/compatibility.md."""
    lines = [
        "# What heads work with",
        "",
        "These tables are written by the tests, for every head of the package: `PYTHONPATH=.:tests python -m "
        "support.compatibility`.",
        "",
        "- **works**: the weights were saved, loaded in another process into a model of another seed, and gave the "
        "same logits; or a step in this way moved the weights as a step without it.",
        "- **refused**: an error with a sentence that says why. Nothing trains or loads silently wrong.",
        "- **-**: does not concern this head.",
    ]
    for title, ways in TITLES.items():
        lines += ["", f"## {title}", "", f"| | {' | '.join(ways)} |", f"|---|{'---|' * len(ways)}"]
        lines += [f"| `{cls.__name__}` | {' | '.join(cells[way][cls.__name__] for way in ways)} |" for cls in CLASSES]
    notes = """
- The stock class of a Hugging Face model would build a random `nn.Linear` in place of the head, so `save_pretrained`
  refuses. A class that calls `swap_head` in its `__init__` gets its head back: see [in-your-loop.md](in-your-loop.md).
- `to_linear` refuses heads whose logits are not affine in their features, or that have an `embed` of their own.
- DDP refuses a model without parameters that need a gradient; a head alone can be one.
- In models that `fully_shard` shards, losses on features through `watch` have the gradients of one process.
  `FullyShardedDataParallel` works with losses on the returned logits; `watch` refuses it.
- Quantization changes `nn.Linear` layers, so the projections inside heads; heads without one stay as they are. In this
  column *works* means that the quantized model's logits are near those before.
"""
    return "\n".join(lines) + "\n" + notes


if __name__ == "__main__":
    if sys.argv[1:2] == ["load"]:
        load_all(Path(sys.argv[2]))
    else:
        with tempfile.TemporaryDirectory() as made:
            everything = saved(Path(made)) | wrapped_cells() | sharded(Path(made))
        PAGE.write_text(page(everything), encoding="utf-8")
