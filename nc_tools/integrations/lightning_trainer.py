"""A callback for Lightning's Trainer."""

from __future__ import annotations

from typing import Any

from nc_tools.integrations.loop_recorder import LoopRecorder


def lightning_callback(recorder: LoopRecorder) -> Any:
    """Return a callback that records a training of Lightning: ``Trainer(callbacks=[lightning_callback(recorder)])``.

    The run begins with ``fit``. What the module logs is recorded after each epoch. After the last epoch the module is
    evaluated: its ``forward`` must return logits. An exception ends the run as FAILED.

    Args:
        recorder: Where and as what the run is recorded, and on what it is evaluated.

    Raises:
        ValueError: If lightning is not installed.
    """
    try:
        from lightning.pytorch import Callback
    except ImportError:
        raise ValueError(
            "a callback for Lightning needs lightning, which is not installed: pip install lightning"
        ) from None

    class Recording(Callback):  # type: ignore[misc]
        """Calls the recorder."""

        def on_fit_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
            recorder.start(pl_module)

        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
            recorder.log(trainer.current_epoch + 1, dict(trainer.callback_metrics))

        def on_fit_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
            recorder.finish(pl_module)

        def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:  # noqa: ARG002
            recorder.fail(exception)

    return Recording()
