"""A callback for the Trainer of Hugging Face transformers."""

from __future__ import annotations

from typing import Any

from nc_tools.integrations.loop_recorder import LoopRecorder


def trainer_callback(recorder: LoopRecorder) -> Any:
    """Return a callback that records a training: ``Trainer(..., callbacks=[trainer_callback(recorder)])``.

    The run starts with ``train``. What the Trainer logs is recorded by step. After training the model is evaluated; the
    recorder's loaders must yield mappings such as ``{"pixel_values": ..., "labels": ...}``. The Trainer does not tell
    its callbacks of an exception: such a run is listed as KILLED when its process has ended.

    Args:
        recorder: Says where the run is recorded, under which arm and seed, and on which data it is evaluated.

    Raises:
        ValueError: If transformers is not installed.
    """
    try:
        from transformers import TrainerCallback
    except ImportError:
        raise ValueError(
            "a callback for the Trainer needs transformers, which is not installed: pip install transformers accelerate"
        ) from None

    class Recording(TrainerCallback):  # type: ignore[misc]
        """Calls the recorder."""

        def on_train_begin(self, args: Any, state: Any, control: Any, *, model: Any, **_: Any) -> None:  # noqa: ARG002
            recorder.start(model)

        def on_log(self, args: Any, state: Any, control: Any, *, logs: Any = None, **_: Any) -> None:  # noqa: ARG002
            if recorder.run is not None and not control.should_training_stop:
                recorder.log(state.global_step, {f"train/{key}": value for key, value in (logs or {}).items()})

        def on_train_end(self, args: Any, state: Any, control: Any, *, model: Any, **_: Any) -> None:  # noqa: ARG002
            recorder.finish(model)

    return Recording()
