"""Checkpoints: interrupted training resumes bit-equal, and no crash leaves a partial file."""

import signal
import subprocess
import sys
import time
from importlib import import_module

import pytest
import torch
from support.small_training import Batches, StopAt, same_state, small

from nc_tools._support.signals import Killed, StopSignal
from nc_tools.heads import LEARNED, CosineHead
from nc_tools.losses import BinaryCrossEntropyLoss, CrossEntropyLoss
from nc_tools.training import OptimConfig, TrainConfig, fit
from nc_tools.training.checkpoint import load_checkpoint, save_checkpoint

loop = import_module("nc_tools.training.loop")


def train(batches, curve, *, checkpoint=None, resume=False, stop=None, ema=0.9, seconds=1000.0):
    torch.manual_seed(5)
    model = small(CosineHead(6, 3, scale=LEARNED), dropout=0.5)
    torch.manual_seed(7)
    training = TrainConfig(epochs=4, ema_decay=ema, checkpoint_seconds=seconds)

    def epoch_end(epoch, values, evaluated):
        total = float(sum(p.detach().double().sum() for p in evaluated.parameters()))
        curve[epoch] = (values["train/loss"], values["train/accuracy"], values["train/lr"], total)

    fitted = fit(model, CrossEntropyLoss(), batches, training, OptimConfig(lr=0.05), epoch_end=epoch_end,
                 checkpoint=checkpoint, resume=resume, stop=stop)  # fmt: skip
    return model, fitted


@pytest.mark.parametrize("ema", [None, 0.9])
@pytest.mark.parametrize("at", [0, 4, 5, 8, 10, 11], ids=lambda at: f"step {at}")
def test_a_stopped_training_resumes_bit_equal(tmp_path, at, ema):
    straight_curve, resumed_curve, path = {}, {}, tmp_path / "checkpoint.pt"
    straight, straight_fitted = train(Batches(), straight_curve, ema=ema)
    stop = StopSignal()
    with pytest.raises(Killed, match=f"after step {at + 1} of 12"):
        train(StopAt(stop, at), resumed_curve, checkpoint=path, stop=stop, ema=ema)
    assert sorted(resumed_curve) == list(range(1, (at + 1) // 3 + 1))  # an epoch that was trained was measured, too
    batches = StopAt(StopSignal(), None)
    resumed, resumed_fitted = train(batches, resumed_curve, checkpoint=path, resume=True, ema=ema)
    assert batches.steps_made == 12 - (at + 1)
    assert resumed_curve == straight_curve
    assert same_state(straight, resumed)
    assert same_state(straight_fitted.model, resumed_fitted.model)


def test_checkpoints_are_at_least_checkpoint_seconds_apart(tmp_path, monkeypatch):
    clock, saved, path = [0.0], [], tmp_path / "checkpoint.pt"
    monkeypatch.setattr(loop.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(loop, "save_checkpoint", lambda target, stored: saved.append((target, stored["epochs_done"])))

    def epoch_end(epoch, *_):
        clock[0] += 1.0

    training = TrainConfig(epochs=10, checkpoint_seconds=3.0)
    fit(small(CosineHead(6, 3)), CrossEntropyLoss(), Batches(), training, OptimConfig(), epoch_end=epoch_end,
        checkpoint=path)  # fmt: skip
    assert saved == [(path, 3), (path, 6), (path, 9)]


def test_a_checkpoint_at_the_end_of_an_epoch_resumes_bit_equal(tmp_path):
    straight_curve, resumed_curve, path = {}, {}, tmp_path / "checkpoint.pt"
    straight, _ = train(Batches(), straight_curve)

    class Broken(Batches):
        def epoch(self, epoch, start=0):
            if epoch == 2:
                raise RuntimeError("the power went")
            return super().epoch(epoch, start)

    with pytest.raises(RuntimeError, match="the power went"):
        train(Broken(), resumed_curve, checkpoint=path, seconds=0.0)
    stored = load_checkpoint(path)
    assert (stored["step"], stored["epochs_done"]) == (6, 2)
    resumed, _ = train(Batches(), resumed_curve, checkpoint=path, resume=True)
    assert resumed_curve == straight_curve
    assert same_state(straight, resumed)


def test_a_state_with_the_scale_of_version_0_2_is_refused(tmp_path):
    """There it has no dimension. The head takes it over, but the optimizer's state of it would not fit."""
    stop, path = StopSignal(), tmp_path / "checkpoint.pt"
    with pytest.raises(Killed):
        train(StopAt(stop, 5), {}, checkpoint=path, stop=stop)
    stored = load_checkpoint(path)
    names = list(stored["model"])
    scale = next(name for name in names if name.endswith("scale_of.raw"))
    stored["model"][scale] = stored["model"][scale].reshape(())
    for state in stored["optimizer"]["state"].values():
        state.update({key: value.reshape(()) for key, value in state.items() if value.shape == (1,)})
    save_checkpoint(path, stored)
    with pytest.raises(
        ValueError, match=r"an earlier version .* in which head\.scale_of\.raw has the shape \(\) and not"
    ):
        train(Batches(), {}, checkpoint=path, resume=True)


def test_parameters_of_a_loss_are_in_the_checkpoint(tmp_path):
    def trained(batches, **options):
        torch.manual_seed(5)
        loss = BinaryCrossEntropyLoss(3)
        model = small()
        fit(model, loss, batches, TrainConfig(epochs=4), OptimConfig(lr=0.05), **options)
        return model, loss

    straight, straight_loss = trained(Batches())
    stop, path = StopSignal(), tmp_path / "checkpoint.pt"
    with pytest.raises(Killed):
        trained(StopAt(stop, 6), checkpoint=path, stop=stop)
    resumed, resumed_loss = trained(Batches(), checkpoint=path, resume=True)
    assert straight_loss.thresholds.detach().abs().min() > 0
    assert same_state(straight_loss, resumed_loss)
    assert same_state(straight, resumed)


def leaves(value):
    if isinstance(value, dict):
        return [leaf for key, item in value.items() if key != "seconds" for leaf in leaves(item)]
    return [leaf for item in value for leaf in leaves(item)] if isinstance(value, list | tuple) else [value]


def test_every_tensor_of_the_state_comes_back(tmp_path):
    def stopped(at, name, resume=False):
        stop = StopSignal()
        with pytest.raises(Killed):
            train(StopAt(stop, at), {}, checkpoint=tmp_path / name, resume=resume, stop=stop)
        return leaves(load_checkpoint(tmp_path / name))

    straight = stopped(7, "straight.pt")
    stopped(3, "twice.pt")
    twice = stopped(7, "twice.pt", resume=True)
    tensors = [leaf for leaf in straight if isinstance(leaf, torch.Tensor)]
    assert len(tensors) > 25  # weights, momenta, average, meter, random state
    assert len(straight) == len(twice)
    for one, other in zip(straight, twice, strict=True):
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def test_without_resume_a_checkpoint_is_not_read(tmp_path):
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(b"not a checkpoint")
    batches = StopAt(StopSignal(), None)
    train(batches, {}, checkpoint=path)
    assert batches.steps_made == 12


def test_the_error_for_a_damaged_checkpoint_says_what_to_do(tmp_path):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"step": 3, "model": {"w": torch.ones(3)}})
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"cannot resume from the checkpoint .*checkpoint\.pt \(.*\)\. Delete it"):
        load_checkpoint(path)


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    import pickle

    class Bomb:
        def __reduce__(self):
            return print, ("boom",)

    path = tmp_path / "checkpoint.pt"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match="cannot resume"):
        load_checkpoint(path)
    torch.save(Bomb(), path)
    with pytest.raises(ValueError, match="cannot resume"):
        load_checkpoint(path)


def test_a_state_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"step": 3})
    with pytest.raises(Exception, match="pickle"):
        save_checkpoint(path, {"step": lambda: None})
    assert load_checkpoint(path) == {"step": 3}
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]


@pytest.mark.slow
def test_a_process_killed_while_saving_leaves_a_complete_checkpoint(tmp_path):
    path = tmp_path / "checkpoint.pt"
    code = (
        "import sys, torch\nfrom pathlib import Path\nfrom nc_tools.training.checkpoint import save_checkpoint\n"
        "for step in range(10**6):\n"
        "    save_checkpoint(Path(sys.argv[1]), {'step': step, 'w': torch.full((200_000,), float(step))})\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(path)])
    try:
        for _ in range(600):
            if path.exists():
                break
            time.sleep(0.05)
        time.sleep(0.3)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    stored = load_checkpoint(path)
    assert torch.equal(stored["w"], torch.full((200_000,), float(stored["step"])))


def test_a_second_signal_soon_after_the_first_does_not_interrupt():
    with StopSignal(signals=(signal.SIGTERM,)) as stop:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert stop.requested
    with StopSignal(signals=(signal.SIGTERM,), patience=0.0):
        signal.raise_signal(signal.SIGTERM)
        time.sleep(0.01)
        with pytest.raises(Killed, match="stopped by a second SIGTERM"):
            signal.raise_signal(signal.SIGTERM)
