"""The checks that losses and metrics share."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from nc_tools._support.labels import check_features_and_labels, check_labels, check_tensors
from nc_tools._support.precision import at_least_float32

INTEGERS = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_are_class_indices(dtype: torch.dtype) -> None:
    labels = torch.zeros(3, dtype=dtype)
    check_labels(labels, 3)
    check_features_and_labels(torch.zeros(3, 2), labels)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.bool, torch.complex64])
def test_other_types_are_not(dtype: torch.dtype) -> None:
    with pytest.raises(TypeError, match=rf"integer class indices \(N,\), got {dtype} of shape \(3, 2\)"):
        check_labels(torch.zeros(3, 2, dtype=dtype), 3)


@pytest.mark.parametrize("shape", [(), (2,), (4,), (3, 1)])
def test_there_is_one_label_for_each_sample(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"must have the shape \(3,\), one for each sample, got \("):
        check_labels(torch.zeros(shape, dtype=torch.int64), 3)


def test_what_is_not_a_tensor_is_named() -> None:
    with pytest.raises(TypeError, match=r"labels must be a tensor, got list\. Convert it with torch.as_tensor\(\)"):
        check_labels([0, 1], 2)
    with pytest.raises(TypeError, match=r"features must be a tensor, got ndarray"):
        check_tensors({"features": torch.zeros(2).numpy()})
    with pytest.raises(ValueError, match=r"features must have the shape \(N, D\), got \(2, 3, 4\)"):
        check_features_and_labels(torch.zeros(2, 3, 4), torch.zeros(2).long())


def test_no_value_is_read() -> None:
    class NoOperation(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            raise AssertionError(func)

    features, labels = torch.zeros(2, 3), torch.zeros(2).long()
    with NoOperation():
        check_features_and_labels(features, labels)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_at_least_float32(dtype: torch.dtype) -> None:
    values = torch.ones(2, dtype=dtype)
    wide = at_least_float32(values)
    assert wide.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert (wide is values) == (dtype in (torch.float32, torch.float64))


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_other_values_are_refused_by_their_name(dtype: torch.dtype) -> None:
    with pytest.raises(TypeError, match=f"logits must be floating-point, got {dtype}"):
        at_least_float32(torch.ones(2, dtype=dtype), "logits")
