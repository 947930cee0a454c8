"""A callback for Lightning's Trainer."""

from __future__ import annotations

from typing import Any

from nc_tools.integrations.loop_recorder import LoopRecorder


def lightning_callback(recorder: LoopRecorder) -> Any:
    """Return a callback that records a training of Lightning: ``Trainer(callbacks=[lightning_callback(recorder)])``.

    The run starts with ``fit``. What the module logs is recorded after each epoch. After the last epoch the module is
    evaluated: its ``forward`` must return logits. An exception ends the run as FAILED.

    Args:
        recorder: Says where the run is recorded, under which arm and seed, and on which data it is evaluated.

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
        """Calls the recorder.

        The record starts after Lightning has set its signal handlers: with the check of the validation data, or the
        first step. Had the record set its handler before, Lightning would restore that handler later, even after the
        end of the run. Lightning turns SIGTERM into an exception, which ends the run as KILLED.
        """

        def on_fit_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
            self._begun = False

        def on_sanity_check_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
            self._begin(pl_module)

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
            self._begin(pl_module)

        def _begin(self, pl_module: Any) -> None:
            if not self._begun:
                recorder.start(pl_module)
                self._begun = True

        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
            recorder.log(trainer.current_epoch + 1, dict(trainer.callback_metrics))

        def on_fit_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
            recorder.finish(pl_module)

        def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:  # noqa: ARG002
            recorder.fail(exception)

    return Recording()
