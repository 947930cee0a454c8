"""Record runs of Lightning and of the Hugging Face Trainer, so that they can be compared with a recipe's arms."""

from nc_tools.integrations.hf_trainer import trainer_callback
from nc_tools.integrations.lightning_trainer import lightning_callback
from nc_tools.integrations.loop_recorder import LoopRecorder

__all__ = ["LoopRecorder", "lightning_callback", "trainer_callback"]
