"""Every way out is taken that errors name about a model: of finding, replacing, watching, converting, measuring."""

import copy
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
import transformers
from support.advice import Case, without_a_case
from support.process_group import process_group
from support.small_network import Small
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.utils.checkpoint import checkpoint

from nc_tools import evaluate, measure
from nc_tools.heads import CosineHead, ETFHead, LinearHead, RBFHead, normalize
from nc_tools.losses import DotRegressionLoss
from nc_tools.records import Batch
from nc_tools.surgery import find_head, pooled, split_head, swap_head, to_linear, watch

X, Y = torch.randn(10, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(10) % 5
LOADER = [(X, Y)]


def swapped(model: nn.Module, **options: Any) -> nn.Module:
    """Replace the head, and check that the new one trains."""
    example = options.get("example", X)
    swap_head(model, ETFHead, **options)
    run(model, example)
    return model


def run(model: nn.Module, example: Any = X) -> Tensor:
    output = model(example)
    while not isinstance(output, Tensor):
        output = next(iter(output.values() if isinstance(output, dict) else output))
    if output.requires_grad:  # not where a fixed head is all there is
        output.square().mean().backward()  # type: ignore[no-untyped-call]
    return output


class Returns(Small):
    """Returns the logits in some form; with ``auxiliary``, has a head that runs in train mode only."""

    def __init__(self, form: Any = lambda logits, _: logits, *, auxiliary: bool = False) -> None:
        super().__init__()
        self.form, self.other = form, nn.Linear(12, 5)
        if not auxiliary:
            self.other = nn.Linear(12, 7)

    def forward(self, x: Tensor) -> Any:
        features = self.features(x)
        return self.form(self.out(features), features)


class TwoTensors(Small):
    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Linear(12, 9)

    def forward(self, x: Tensor) -> Any:
        features = self.features(x)
        return self.out(features), self.other(features)


class Averaged(Small):
    """Two heads, averaged."""

    def __init__(self) -> None:
        super().__init__()
        self.other: nn.Module = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Any:
        features = self.features(x)
        return (self.out(features) + self.other(features)) / 2

    def both_replaced(self) -> None:
        swap_head(self, ETFHead, name="out")
        swapped(self, name="other")


class Timm(Averaged):
    """Averaged heads, with timm's way to take them off."""

    head_hidden_size = 12

    def reset_classifier(self, number: int) -> None:
        assert number == 0
        self.forward = self.features  # type: ignore[method-assign]


class Tokens(nn.Module):
    """Scores tokens; takes the last, which an input of equal tokens does not show."""

    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.score(x)[:, -1]  # type: ignore[no-any-return]


class Ids(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.out = nn.Embedding(20, 8), nn.Linear(8, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return self.out(self.embed(ids).mean(1))  # type: ignore[no-any-return]


class Language(nn.Module):
    def __init__(self, *, tied: bool = True) -> None:
        super().__init__()
        self.embed, self.out = nn.Embedding(9, 8), nn.Linear(8, 9, bias=False)
        if tied:
            self.out.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.out(self.embed(ids))  # type: ignore[no-any-return]


class Features(Small):
    num_classes = 0

    def forward(self, x: Tensor) -> Any:
        return self.features(x)


class Labeled(Small):
    def __init__(self, num_labels: int = 0) -> None:
        super().__init__()
        self.num_labels = num_labels

    def forward(self, x: Tensor) -> Any:
        features = self.features(x)
        return self.out(features) if self.num_labels else features


class ReadsWeight(Small):
    """Reads the weight of a linear layer instead of calling it, once the layer is another one."""

    def forward(self, x: Tensor) -> Any:
        features = self.features(x)
        return self.out(features) if isinstance(self.out, nn.Linear) else self.mix(features)


class OwnLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(8, 4))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.matrix


class OwnHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.out = nn.Embedding(20, 8), OwnLayer()

    def forward(self, ids: Tensor) -> Tensor:
        return self.out(self.embed(ids).mean(1))  # type: ignore[no-any-return]


class Squared(LinearHead):
    """Says that it is affine, and has an ``embed`` of its own."""

    def embed(self, features: Tensor) -> Tensor:
        return normalize(features) ** 2


class NotAffine(LinearHead):
    def compute_logits(self, embedded: Tensor) -> Tensor:
        return super().compute_logits(embedded) ** 3


class SaysSo(NotAffine):
    affine = False


class Square(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return normalize(x) ** 2


class TwoHeads(Small):
    def __init__(self) -> None:
        super().__init__()
        self.mix = LinearHead(12, 12)  # type: ignore[assignment]
        self.out = LinearHead(12, 5)  # type: ignore[assignment]


def vit(cls: Any = transformers.ViTForImageClassification) -> Any:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return cls(transformers.ViTConfig(**sizes, image_size=8, patch_size=4, num_labels=5))


class OwnVit(transformers.ViTForImageClassification):  # type: ignore[misc, name-defined]
    """The class that the message advises to write."""

    def __init__(self, config: Any = None) -> None:
        super().__init__(vit().config if config is None else config)
        swap_head(self, ETFHead, name="classifier")


def saved(model: Any) -> None:
    """Save as Hugging Face does, and load."""
    if not isinstance(model, OwnVit):
        swap_head(model, ETFHead)
    with TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        again = type(model).from_pretrained(folder)
    assert torch.equal(again.eval()(X).logits, model.eval()(X).logits)


def saved_as_weights() -> None:
    first, second = vit(), vit()
    for model in (first, second):
        swap_head(model, ETFHead)
    with TemporaryDirectory() as folder:
        torch.save(first.state_dict(), f"{folder}/weights.pt")
        second.load_state_dict(torch.load(f"{folder}/weights.pt", weights_only=True))
    assert torch.equal(second.eval()(X).logits, first.eval()(X).logits)


IDS = torch.randint(0, 9, (2, 6), generator=torch.Generator().manual_seed(0))
ROWS = torch.randn(4, 8)


def observed(model: nn.Module, call: Any = None) -> Any:
    """Return what is watched after a pass."""
    watched = watch(model)
    (model if call is None else call)(X)
    return watched


def trains(watched: Any, number: int = 10) -> None:
    outputs = watched.outputs
    assert len(outputs.features) == number
    DotRegressionLoss()(outputs, Batch(X, Y, torch.arange(10))).backward()


def plain() -> Small:
    model = Small()
    swap_head(model, LinearHead)
    return model


def copied() -> Any:
    model = plain()
    model2, watched = copy.deepcopy((model, watch(model)))
    model2(X)
    return watched


def copied_and_watched() -> None:
    trains(observed(copy.deepcopy(plain())))


def without_gradients() -> Any:
    model = plain()
    watched = watch(model)
    with torch.no_grad():
        model(X)
    return watched


def twice(watched_part: str) -> Any:
    class Twice(Small):
        def forward(self, x: Tensor) -> Any:
            return super().forward(x) + super().forward(x.flip(-1))

    model = Twice()
    swap_head(model, LinearHead, name="out")
    return observed(model if not watched_part else model.out, model)


def of_tokens() -> Any:
    model = Tokens()
    swap_head(model, LinearHead, name="score")
    watched = watch(model)
    model(torch.randn(2, 4, 6))
    return watched


def rows_of_tokens() -> None:
    labels = torch.tensor([[0, 1, 2, -100], [1, 0, -100, 2]]).flatten()
    rows = of_tokens().rows()
    DotRegressionLoss()(rows, Batch(rows.features, labels, torch.arange(8))).backward()


def pooled_tokens() -> None:
    class PooledTokens(Tokens):
        def forward(self, x: Tensor) -> Tensor:
            return self.score(x.mean(1))  # type: ignore[no-any-return]

    model = PooledTokens()
    swap_head(model, LinearHead, example=torch.randn(2, 4, 6))
    watched = watch(model)
    model(torch.randn(2, 4, 6))
    assert watched.outputs.features.shape == (2, 6)


def convolutional() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 12, 3), nn.Sequential(nn.Conv2d(12, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()))


def pooled_before() -> None:
    model = convolutional()
    model[1] = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5))
    swapped(model)


def lazy_then_run() -> None:
    model = nn.Sequential(nn.Flatten(), nn.LazyLinear(8), nn.Linear(8, 5))
    model(X)
    swapped(model, example=X)


def compiled_after() -> None:
    model = torch.compile(swapped(Small()), backend="eager")
    run(model)  # type: ignore[arg-type]


def reset() -> None:
    model = Timm()
    model.reset_classifier(0)
    run(nn.Sequential(model, ETFHead(12, 5)))


def tied_linear() -> None:
    model = Language()
    assert swap_head(model, LinearHead, example=IDS).weight is model.embed.weight


def again(loader: Any = LOADER, **options: Any) -> None:
    assert "nc/nc1_trace" in measure(Small(), loader, **options)


class Wrapped:
    """A loader in a class whose ``__iter__`` yields (inputs, labels), as the message says."""

    def __iter__(self) -> Any:
        return iter((batch["x"], batch["y"]) for batch in [{"x": X, "y": Y}])


class Changing:
    def __init__(self, noise: float) -> None:
        self.noise = noise

    def __iter__(self) -> Any:
        return iter([(X + self.noise * torch.randn_like(X), Y)])


class Calls(Small):
    """Calls a layer twice."""

    def features(self, x: Tensor) -> Tensor:
        return torch.relu(self.mix(super().features(x)))


class TwiceCalledHead(Small):
    def forward(self, x: Tensor) -> Any:
        self.out(self.features(x))
        return super().forward(x)


SWAP = [
    Case(
        "then wrap it",
        lambda: swap_head(nn.DataParallel(Small()), ETFHead),
        lambda: nn.DataParallel(swapped(Small()))(X),
    ),
    Case("then compile it", lambda: swap_head(torch.compile(Small()), ETFHead), compiled_after),  # type: ignore[arg-type]
    Case(
        "Run the model once on a batch of your data, then call swap_head with it as example=",
        lambda: swap_head(nn.Sequential(nn.Flatten(), nn.LazyLinear(5)), ETFHead),
        lazy_then_run,
    ),
    Case(
        "Pass name= with the layer to replace",
        lambda: swap_head(TwoTensors(), ETFHead),
        lambda: swapped(TwoTensors(), name="out"),
        lambda: swapped(TwoTensors(), name="other"),
    ),
    Case(
        "pass example= with an input, or name= with one of 'out'",
        lambda: swap_head(Ids(), ETFHead),
        lambda: swapped(Ids(), example=IDS),
        lambda: swap_head(Ids(), ETFHead, name="out"),
    ),
    Case(
        "pass name= with one of them if you train on it",
        lambda: swap_head(Returns(lambda z, h: (h, z)), ETFHead),
        lambda: swapped(Returns(lambda z, h: (z, h)), name="out"),
    ),
    Case(
        "pass name= with the layer that computes them. Layers that ran, the last ones: 'mix', 'out'",
        lambda: swap_head(Returns(lambda z, _: {"scores": z * 2}), ETFHead),
        lambda: swapped(Returns(lambda z, _: {"scores": z * 2}), name="out"),
    ),
    Case(
        "Pass name='score' if it picks one",
        lambda: swap_head(Tokens(), ETFHead, example=torch.ones(2, 4, 6)),
        lambda: swapped(Tokens(), name="score", example=torch.ones(2, 4, 6)),
    ),
    Case(
        "replace it and the pooling with nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5)); for a "
        "head that sees every pixel, pass name='1.0'",
        lambda: swap_head(convolutional(), ETFHead),
        pooled_before,
        lambda: swapped(convolutional(), name="1.0"),
    ),
    Case(
        "Remove the softmax at the end of the model",
        lambda: swap_head(nn.Sequential(Small(), nn.Softmax(1)), ETFHead),
        lambda: swapped(nn.Sequential(Small())),
    ),
    Case(
        "Remove the log-softmax at the end",
        lambda: swap_head(nn.Sequential(Small(), nn.LogSoftmax(1)), ETFHead),
        lambda: swapped(nn.Sequential(Small())),
    ),
    Case(
        "Pass name= with this layer if you train on its output",
        lambda: swap_head(Returns(lambda z, _: z / 2), ETFHead),
        lambda: swapped(Returns(lambda z, _: z / 2), name="out"),
    ),
    Case(
        "with each in turn if the model combines their outputs",
        lambda: swap_head(Averaged(), ETFHead),
        lambda: swapped(Averaged(), name="out"),
        lambda: Averaged().both_replaced(),
    ),
    Case(
        "put a head after it: nn.Sequential(model, ETFHead(192, K))",
        lambda: swap_head(nn.Sequential(nn.Conv2d(3, 3, 1), nn.Flatten()), ETFHead, example=X),
        lambda: run(nn.Sequential(nn.Conv2d(3, 3, 1), nn.Flatten(), ETFHead(192, 5))),
    ),
    Case(
        "Call model.reset_classifier(0), after which model(x) returns features (N, 12)",
        lambda: find_head(Timm()),
        reset,
    ),
    Case(
        "build it without them (aux_logits=False in torchvision), or pass name='out'",
        lambda: swap_head(Returns(auxiliary=True), ETFHead),
        lambda: swapped(Returns(auxiliary=False)),
        lambda: swapped(Returns(auxiliary=True), name="out"),
    ),
    Case(
        "put a head after it, as in nn.Sequential(model, ETFHead(12, num_classes))",
        lambda: swap_head(Features(), ETFHead),
        lambda: run(nn.Sequential(Features(), ETFHead(12, 5))),
    ),
    Case("build it with num_labels=K", lambda: swap_head(Labeled(), ETFHead), lambda: swapped(Labeled(num_labels=5))),
    Case(
        "LinearHead keeps the shared weight, for as many classes; for another head build the model untied",
        lambda: swap_head(Language(), CosineHead, example=IDS),
        tied_linear,
        lambda: swap_head(Language(tied=False), CosineHead, example=IDS),
    ),
    Case("did you mean 'out'?", lambda: swap_head(Small(), ETFHead, name="outt"), lambda: swapped(Small(), name="out")),
    Case(
        "pass name= with 'out' or 'mix'",
        lambda: swap_head(Small(), ETFHead, name="norm"),
        lambda: swap_head(Small(), ETFHead, name="out"),
        lambda: swap_head(Small(), ETFHead, name="mix"),
    ),
    Case(
        "pass example= with an input on which it runs",
        lambda: swap_head(OwnHead(), ETFHead, name="out"),
        lambda: swapped(OwnHead(), name="out", example=IDS),
    ),
    Case(
        "wrap it first, as in nn.Sequential(model)",
        lambda: split_head(nn.Linear(8, 5)),
        lambda: split_head(nn.Sequential(nn.Linear(8, 5))),
    ),
    Case("use swap_head(model, ETFHead)", lambda: swap_head(Small(), nn.Linear), lambda: swapped(Small())),  # type: ignore[arg-type]
    Case(
        "call the layer in forward, or pass name='...' with another layer",
        lambda: swap_head(ReadsWeight(), ETFHead),
        lambda: swapped(Small()),
        lambda: swapped(ReadsWeight(), name="mix"),
    ),
]

SAVE = [
    Case(
        "save the weights with torch.save(model.state_dict(), path), or save a model whose class swaps the head itself",
        lambda: saved(vit()),
        lambda: saved_as_weights(),
        lambda: saved(OwnVit()),
    ),
]

CONVERT = [
    Case("pass a head of nc_tools, such as model.fc", lambda: to_linear(Small()), lambda: to_linear(plain().out)),  # type: ignore[arg-type]
    Case(
        "Export the head itself, with torch.export",
        lambda: to_linear(RBFHead(8, 4)),
        lambda: torch.export.export(RBFHead(8, 4), (ROWS,)).module()(ROWS),
    ),
    Case(
        "pass layers that compute the same, as in to_linear(head, embed=nn.Sequential(...))",
        lambda: to_linear(Squared(8, 4)),
        lambda: to_linear(Squared(8, 4), embed=nn.Sequential(Square())),
    ),
    Case(
        "correct the layers passed as embed",
        lambda: to_linear(Squared(8, 4), embed=nn.Sequential(Square(), nn.Unflatten(1, (1, 8)))),
        lambda: to_linear(Squared(8, 4), embed=nn.Sequential(Square())),
    ),
    Case(
        "set affine = False in the class",
        lambda: to_linear(NotAffine(8, 4)),
        lambda: torch.export.export(SaysSo(8, 4), (ROWS,)),
    ),
]

WATCH = [
    Case("as in swap_head(model, LinearHead)", lambda: watch(Small()), lambda: trains(observed(plain()))),
    Case("remove static_graph=True", lambda: statically_wrapped(static=True), lambda: statically_wrapped(static=False)),
    Case("use torch.distributed.fsdp.fully_shard", lambda: sharded_by_fsdp1(), lambda: sharded()),
    Case(
        "compile its blocks before fully_shard, as in block.compile()",
        lambda: sharded(whole=True),
        lambda: sharded(blocks=True),
    ),
    Case(
        "call model(torch.cat([images, second]))",
        lambda: odd().halves(),
        lambda: observed(model := plain(), lambda x: model(torch.cat([x, x.flip(-1)]))).halves(),
    ),
    Case(
        "call the model first, and call watch(model) before torch.compile runs it",
        lambda: watch(plain()).outputs,
        lambda: trains(observed(plain())),
        lambda: trains(observed(model := plain(), torch.compile(model, backend="eager"))),
    ),
    Case("call watch(model) for the copy of the model", lambda: copied().outputs, copied_and_watched),
    Case(
        "watch one of them, as in watch(model.get_submodule('mix'))",
        lambda: observed(TwoHeads()).outputs,
        lambda: trains(observed((model := TwoHeads()).get_submodule("mix"), model)),
    ),
    Case("watch the head itself, watch(head)", lambda: twice("").outputs, lambda: two_reads()),
    Case(
        "read outputs right after the training pass, before any evaluation. With torch.utils.checkpoint, pass "
        "use_reentrant=False, or leave the head outside",
        lambda: without_gradients().outputs,
        lambda: trains(observed(plain())),
        lambda: trains(observed(model := plain(), lambda x: checkpoint(model, x, use_reentrant=False))),
    ),
    Case(
        "use watched.rows() with labels.flatten() for a row for each token, or pool the tokens before the head",
        lambda: of_tokens().outputs,
        rows_of_tokens,
        pooled_tokens,
    ),
]


def sharded_by_fsdp1() -> None:
    with process_group():
        trains(observed(FullyShardedDataParallel(plain(), device_id=torch.device("cpu"))))


def sharded(*, whole: bool = False, blocks: bool = False) -> None:
    with process_group() as mesh:
        model = plain()
        if blocks:
            model.mix.compile(backend="eager")
        fully_shard(model, mesh=mesh)
        trains(observed(model, torch.compile(model, backend="eager") if whole else None))


def odd() -> Any:
    model = plain()
    watched = watch(model)
    model(X[:3])
    return watched


def two_reads() -> None:
    """Watch the head, and read its outputs after each of two calls."""
    model = plain()
    watched = watch(model.out)
    first = (model(X), watched.outputs)[1]
    second = (model(X.flip(-1)), watched.outputs)[1]
    assert not torch.equal(first.features, second.features)
    DotRegressionLoss()(second, Batch(X, Y, torch.arange(10))).backward()


class Static(nn.parallel.DistributedDataParallel):
    """Wrapped, without the process group that DDP wants at once."""

    def __init__(self, module: nn.Module, *, static_graph: bool) -> None:
        nn.Module.__init__(self)
        self.module, self.static_graph = module, static_graph

    def forward(self, *inputs: Any) -> Any:
        return self.module(*inputs)


def statically_wrapped(*, static: bool) -> None:
    trains(observed(Static(plain(), static_graph=static)))


def segmented(labels: Tensor | None = None, **options: Any) -> None:
    """Measure a network with a head on maps, its layer "3", and perhaps one on vectors after it, "6"."""
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(2), nn.Unflatten(2, (4, 5)), nn.Conv2d(4, 3, 1))
    pixels = torch.arange(40).reshape(2, 4, 5) % 3
    if options.get("head") == "6":
        model = nn.Sequential(*model, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3))
    assert "accuracy" in measure(model, [(torch.randn(2, 3, 4, 5), pixels if labels is None else labels)], **options)


MEASURE = [
    Case("Pass the model object", lambda: measure("resnet", LOADER), again),  # type: ignore[arg-type]
    Case(
        "Pass the DataLoader itself instead of iter(loader), or raise keep_gb",
        lambda: again(iter(LOADER), keep_gb=0),
        lambda: again(LOADER, keep_gb=0),
        lambda: again(iter(LOADER), keep_gb=1),
    ),
    Case(
        "Pass the name of the classifier layer, as in head='fc'",
        lambda: measure(TwiceCalledHead(), LOADER),
        lambda: again(head="out"),
    ),
    Case("Pass the labels of the whole data set", lambda: again(clean=Y[:3]), lambda: again(clean=Y)),
    Case(
        "Wrap the loader in a class whose __iter__ yields (inputs, labels)",
        lambda: again([{"x": X, "y": Y}]),
        lambda: again(Wrapped()),
    ),
    Case("Measure images of more classes", lambda: again([(X, torch.zeros_like(Y))]), again),
    Case(
        "Switch off augmentation and random subsets",
        lambda: again(Changing(noise=1.0), keep_gb=0),
        lambda: again(Changing(noise=0.0), keep_gb=0),
    ),
    Case(
        "did you mean 'conv'?",
        lambda: again(layers=["convv"]),
        lambda: again(layers=["conv"]),
    ),
    Case(
        "name another layer, or pass another pooling function",
        lambda: again(layers=["conv"], pool=lambda maps: maps.flatten(2)),
        lambda: again(layers=["mix"], pool=lambda maps: maps),
        lambda: again(layers=["conv"], pool=lambda maps: maps.flatten(1)),
    ),
    Case(
        "Only a layer that runs once has one set of features: name another layer",
        lambda: measure(Calls(), LOADER, layers=["mix"]),
        lambda: measure(Calls(), LOADER, layers=["conv"]),
    ),
    Case("name another layer", lambda: pooled(torch.zeros(3)), lambda: pooled(torch.zeros(3, 2))),
    Case(
        "give a loader with at least one batch",
        lambda: evaluate(Small(), [], []),
        lambda: evaluate(Small(), LOADER, LOADER),
    ),
    Case(
        "pass the name of the classifier layer, as in head='fc'",
        lambda: evaluate(TwiceCalledHead(), LOADER, LOADER),
        lambda: evaluate(Small(), LOADER, LOADER, head="out"),
    ),
    Case(
        "for tokens and pixels use nc_tools.measure",
        lambda: evaluate(Language(), [(IDS, IDS.flip(1))], [(IDS, IDS.flip(1))]),
        lambda: measure(Language(), [(IDS, IDS.flip(1))]),
        lambda: segmented(),
    ),
    Case(
        "Pass the path of the last 1 x 1 convolution, as in head='classifier.4', or labels (2,) of the images",
        lambda: segmented(head="6"),
        lambda: segmented(head="3"),
        lambda: segmented(torch.arange(2), head="6"),
    ),
    Case(
        "name another layer, or pass a pooling function that gives a row for each pixel of the head's map",
        lambda: segmented(layers=["1"]),
        lambda: segmented(layers=["0"]),
        lambda: segmented(layers=["1"], pool=lambda maps: maps.flatten(2).transpose(1, 2).flatten(0, 1)),
    ),
    Case(
        "pass labels = torch.nn.functional.pad(ids[:, 1:], (0, 1), value=-100)",
        lambda: measure(Language(), [(IDS, IDS)]),
        lambda: measure(Language(), [(IDS, torch.nn.functional.pad(IDS[:, 1:], (0, 1), value=-100))]),
    ),
]

CASES = [*SWAP, *SAVE, *CONVERT, *WATCH, *MEASURE]
PLACES = [
    "surgery",
    *(
        f"measuring/{name}.py"
        for name in ("measure", "model_pass", "pixel_maps", "evaluate", "loader_batches", "two_pass_stats")
    ),
]


@pytest.mark.filterwarnings("ignore")  # of transformers and FSDP, about names that they will change
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.says[:60])
@pytest.mark.slow
def test_the_advice_works(case: Any) -> None:
    case.check()


@pytest.mark.filterwarnings("ignore")
def test_every_advice_has_a_case() -> None:
    assert without_a_case(CASES, *PLACES) == []
