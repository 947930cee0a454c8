"""Record and replay a function on a CPU as a CUDA graph does: what is no tensor is frozen, and nothing may be read."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Operations whose result, or its size, the host reads: a GPU would be waited for.
WAITING = (
    "_local_scalar_dense", "nonzero", "masked_select", "equal.default", "is_nonzero", "unique", "bincount",
    "repeat_interleave.Tensor", "_linalg_eigh", "_linalg_svd", "lift_fresh",
)  # fmt: skip


class Waits(TorchDispatchMode):
    """Raise an error for an operation that would make the host wait for a GPU, or copies numbers to it."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func)
        masked = name.startswith(("aten.index.", "aten.index_put")) and any(
            i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1]
        )
        if masked or any(waiting in name for waiting in WAITING):
            raise RuntimeError(f"{name} makes the host wait for the device")
        return self.computed(func, args, kwargs or {})

    def computed(self, func, args, kwargs):
        return func(*args, **kwargs)


class Recording(Waits):
    """The operations that a function makes, with the tensors that they read and write."""

    def __init__(self):
        super().__init__()
        self.operations = []

    def computed(self, func, args, kwargs):
        result = func(*args, **kwargs)
        if func.namespace != "profiler":
            # An operation without an alias in its schema returns new memory: that of the recording is written again.
            own = [value.alias_info is None for value in func._schema.returns]
            results = result if isinstance(result, tuple) else (result,)
            if not (own and not any(own)) or func._schema.is_mutable:
                written = [t for part, new in zip(results, own, strict=False) if new for t in tree_leaves(part)]
                self.operations.append((func, args, kwargs, [t for t in written if isinstance(t, torch.Tensor)], own))
        return result


class Replay:
    def __init__(self, recorder, operations, result):
        self.recorder, self.operations, self.result = recorder, operations, result

    @torch.no_grad()
    def replay(self):
        self.recorder.replays += 1
        for func, args, kwargs, written, own in self.operations:
            result = func(*args, **kwargs)
            results = result if isinstance(result, tuple) else (result,)
            again = [t for part, new in zip(results, own, strict=False) if new for t in tree_leaves(part)]
            again = [t for t in again if isinstance(t, torch.Tensor)]
            for old, new in zip(written, again, strict=True):
                old.copy_(new)


class CpuRecorder:
    """A recorder for ``fit`` on a CPU."""

    def __init__(self):
        self.recordings = self.replays = 0

    def warm_up(self, call):
        with Waits():
            return call()

    def record(self, call):
        with Recording() as recording:
            result = call()
        self.recordings += 1
        return Replay(self, recording.operations, result)
