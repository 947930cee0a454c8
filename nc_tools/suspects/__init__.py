"""Labels that are likely wrong in a set of features, without a trained model and without true labels.

``nc-tools suspects FILE`` does this for an embedding file; :func:`find_suspects` does it for tensors.
"""

from nc_tools.suspects.find_suspects import FoundSuspects, find_suspects
from nc_tools.suspects.out_of_fold import out_of_fold_logits, standardized
from nc_tools.suspects.suspects_job import SuspectsJob, run_suspects

__all__ = ["FoundSuspects", "SuspectsJob", "find_suspects", "out_of_fold_logits", "run_suspects", "standardized"]
