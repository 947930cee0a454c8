"""Two processes that divide each batch train the model of one process: every head, every loss, every option."""

import tempfile
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from support.divided_training import CASES, Centered, CountedReads, Counting, digits, in_processes, linear, made
from support.process_group import process_group
from support.side_by_side import Images, largest_difference
from torch import nn

from nc_tools._support.signals import StopSignal
from nc_tools.data import BalancedSampling, DataConfig, load_data
from nc_tools.models import ConvNet
from nc_tools.training import TrainConfig
from nc_tools.training.checkpoint import load_checkpoint
from nc_tools.training.processes import Processes

slow = pytest.mark.slow  # two processes


class StopsAt(Images):
    """Requests a stop in the second process as the fourth of six steps begins."""

    def __init__(self, processes, stop):
        super().__init__(size=9, steps=3)
        self.processes, self.stop = processes, stop

    def epoch(self, epoch, start=0):
        for step, batch in enumerate(super().epoch(epoch, start), start=start):
            self.stop.requested |= (epoch, step) == (1, 0) and not self.processes.is_first
            yield batch


def with_dropout(**more):
    torch.manual_seed(0)
    return linear(backbone=nn.Sequential(ConvNet(1, 6, width=3), nn.Dropout(0.5)), **more)


def ending(train, *arguments, **more):
    """Return the name and the text of the error that ends a training."""
    try:
        train(*arguments, **more)
    except BaseException as error:  # noqa: BLE001  also Killed
        return type(error).__name__, str(error)
    return None


def stopped(processes, train, checkpoint):
    """Stop a training by the second process; return how it ended, and the steps in the first one's checkpoint."""
    stop = StopSignal()
    end = ending(train(batches=StopsAt(processes, stop)).train, processes, stop=stop, **of_first(processes, checkpoint))
    return end, load_checkpoint(checkpoint)["step"] if processes.is_first else None


def read_together(processes):
    torch.manual_seed(0)
    reads = CountedReads(load_data(DataConfig()).train)
    return digits(BalancedSampling(), readers=processes, reads=reads).train(processes), reads.count


def of_first(processes, checkpoint):
    return {"checkpoint": checkpoint} if processes.is_first else {}


def endings(processes, folder):
    """Trainings that do not end as usual, one after the other: the processes must stay at one step."""
    images = Images(size=9, steps=3)

    def at_the_end(epoch, values, model):
        if epoch == 2:
            raise OSError("no space left")

    return {
        "stop": stopped(processes, with_dropout, folder / "two.pt"),
        "resumed": with_dropout(batches=images).train(processes, resume=True, **of_first(processes, folder / "two.pt")),
        "stop before one process": stopped(processes, linear, folder / "one.pt"),
        "without a stop": with_dropout(batches=images).train(processes),
        "files": read_together(processes),
        "divergence": ending(linear(batches=Images(size=9, steps=3, poison=(1, 1))).train, processes),
        "an error of the first": ending(made("two views").train, processes, epoch_end=at_the_end),
        "an end by the first": linear(training=TrainConfig(epochs=9)).train(processes, epoch_end=lambda e, *_: e == 2),
        "a network of its own kind": ending(linear(backbone=Centered()).train, processes),
        "statistics of its own kind": ending(linear(backbone=Counting()).train, processes),
        "a compiled backbone": ending(linear(training=TrainConfig(epochs=1, compile=True)).train, processes),
        "too few samples": ending(linear(batches=Images(size=1)).train, processes),
        "afterwards": made("digits").train(processes),
    }


def everything(processes, folder):
    return {name: made(name).train(processes) for name in CASES} | endings(processes, Path(folder))


@pytest.fixture(scope="module")
def of_two():
    with tempfile.TemporaryDirectory() as folder:
        first, second = in_processes(everything, folder)
        yield first | {"folder": folder}, second


def assert_close(one, other):
    """Compare weights and curves in float64: sums over two parts are rounded otherwise than sums over a batch."""
    assert largest_difference(one[0], other[0]) < 1e-9
    for values, expected in zip(one[1], other[1], strict=True):
        assert values == pytest.approx(expected, rel=1e-9)


@slow
@pytest.mark.parametrize("name", CASES)
def test_two_processes_train_the_model_of_one(of_two, name):
    first, second = (of_process[name] for of_process in of_two)
    states, curve, notes = made(name).train()
    assert_close(first, (states, curve))
    assert largest_difference(first[0], second[0]) == 0
    assert notes == first[2] == second[2] == []
    assert second[1] == []  # the first process alone reports


@slow
def test_a_stop_in_one_process_stops_all_and_the_training_resumes(of_two):
    ended = ("Killed", "training was stopped after step 4 of 6")
    assert of_two[0]["stop"] == of_two[0]["stop before one process"] == (ended, 4)
    assert of_two[1]["stop"] == of_two[1]["stop before one process"] == (ended, None)
    for of_process in of_two:  # with dropout
        assert largest_difference(of_process["resumed"][0], of_process["without a stop"][0]) == 0


@slow
def test_one_process_goes_on_with_the_training_of_two(of_two):
    images = Images(size=9, steps=3)
    resumed = linear(batches=images).train(checkpoint=Path(of_two[0]["folder"]) / "one.pt", resume=True)
    whole = linear(batches=images).train()
    assert_close((resumed[0], resumed[1]), (whole[0], whole[1][1:]))


@slow
def test_each_process_reads_its_part_of_the_files(of_two):
    (first, of_first), (second, of_second) = (of_process["files"] for of_process in of_two)
    assert largest_difference(first[0], second[0]) == 0
    expected = of_two[0]["digits, class-balanced"]
    assert (largest_difference(first[0], expected[0]), first[1]) == (0, expected[1])
    assert of_first + of_second == 2 * 61
    assert min(of_first, of_second) >= 2 * 28


@slow
def test_dropout_differs_between_the_processes_and_a_note_says_so(of_two):
    first, second = (of_process["without a stop"] for of_process in of_two)
    assert largest_difference(first[0], second[0]) == 0
    [note] = first[2]
    assert "each process draws those of its own images" in note
    assert second[2] == []
    assert largest_difference(first[0], with_dropout(batches=Images(size=9, steps=3)).train()[0]) > 1e-3


@slow
def test_all_processes_end_with_the_first(of_two):
    first, second = of_two
    ended = ("Killed", "the first process has ended this training")
    assert first["divergence"][0] == "NonFiniteLossError"
    assert first["an error of the first"] == ("OSError", "no space left")
    assert second["divergence"] == second["an error of the first"] == ended
    assert_close((first["an end by the first"][0], []), (made_for_two_epochs(), []))
    assert largest_difference(first["an end by the first"][0], second["an end by the first"][0]) == 0
    assert_close(first["afterwards"], first["digits"])


def made_for_two_epochs():
    return linear(training=TrainConfig(epochs=9)).train(epoch_end=lambda epoch, *_: epoch == 2)[0]


@slow
def test_what_cannot_be_divided_is_refused(of_two):
    first, second = of_two
    for network, name in (("a network of its own kind", "Centered"), ("statistics of its own kind", "Counting")):
        assert second[network] == ("Killed", "the first process has ended this training")
        assert first[network] == (
            "ValueError",
            f"a batch of {name} cannot be divided among processes, because its features of an image, or statistics "
            f"that it keeps, depend on other images of the batch, and not by batch normalization alone: train it in "
            f"one process",
        )
    for of_process in of_two:
        assert of_process["a compiled backbone"] == (
            "ValueError",
            "a compiled backbone cannot be divided among processes, got training.compile=true: set it to false",
        )
        assert of_process["too few samples"] == (
            "ValueError",
            "a batch of 1 samples cannot be divided among 2 processes: set a larger training.batch_size, or start "
            "fewer processes",
        )


def test_one_process_that_divides_nothing_trains_as_without():
    states, curve, _ = made("digits").train()
    assert_close(made("digits").train(Processes(dist.HashStore(), 0, 1)), (states, curve))


def test_a_default_group_is_refused():
    with (
        process_group(),
        pytest.raises(ValueError, match=r"init_process_group\(\) was called too.*leave that call out"),
    ):
        made("digits").train(Processes(dist.HashStore(), 0, 1))
