# The public names of nc_tools, for type checkers and for lazy_loader, which reads this file.
# To use a head or loss that is not listed, import it from nc_tools.heads or nc_tools.losses.

from .class_moments import ClassMoments as ClassMoments
from .comparison import compare as compare
from .experiment import load_run as load_run
from .heads import LEARNED as LEARNED
from .heads import CosineHead as CosineHead
from .heads import ETFHead as ETFHead
from .heads import FrozenRandomHead as FrozenRandomHead
from .heads import Head as Head
from .heads import LinearHead as LinearHead
from .heads import NearestETFHead as NearestETFHead
from .heads import SphericalCodeHead as SphericalCodeHead
from .heads import StructuredETFHead as StructuredETFHead
from .losses import BalancedSoftmaxLoss as BalancedSoftmaxLoss
from .losses import CrossEntropyLoss as CrossEntropyLoss
from .losses import DotRegressionLoss as DotRegressionLoss
from .losses import EarlyLearningLoss as EarlyLearningLoss
from .losses import FocalLoss as FocalLoss
from .losses import GeneralizedCrossEntropyLoss as GeneralizedCrossEntropyLoss
from .losses import LDAMLoss as LDAMLoss
from .losses import LogitAdjustedLoss as LogitAdjustedLoss
from .losses import LossTerm as LossTerm
from .losses import SupConLoss as SupConLoss
from .losses import SymmetricCrossEntropyLoss as SymmetricCrossEntropyLoss
from .losses import VectorScalingLoss as VectorScalingLoss
from .losses import WeightedSumLoss as WeightedSumLoss
from .losses import term as term
from .measuring import evaluate as evaluate
from .measuring import measure as measure
from .metrics import expected_calibration_error as expected_calibration_error
from .metrics import neural_collapse as neural_collapse
from .records import Batch as Batch
from .records import Outputs as Outputs
from .specs import spec as spec
from .surgery import find_head as find_head
from .surgery import split_head as split_head
from .surgery import swap_head as swap_head
from .surgery import to_linear as to_linear
from .surgery import watch as watch
from .tracking import TrackedData as TrackedData
from .tracking import track as track

__version__: str
