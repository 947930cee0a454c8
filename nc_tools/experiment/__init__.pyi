from .model_config import ModelConfig as ModelConfig
from .recipe_cli import run_recipe as run_recipe
from .run_config import Protocol as Protocol
from .run_config import RunConfig as RunConfig
from .run_config import TunedParameter as TunedParameter
from .trained_model import TrainedModel as TrainedModel
from .trained_model import load_run as load_run
