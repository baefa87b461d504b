"""A GPU that is not there: tensors on the CPU that say `cuda`, for what goes wrong or waits on a GPU only."""

import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

GPU = torch.device("cuda", 0)
_DEVICE, _IS_CUDA = Tensor.device.__get__, Tensor.is_cuda.__get__
_TAKES_BOTH = {"__getitem__", "__setitem__", "copy_", "index_put_"}
_WAITS = {"item", "tolist", "__bool__", "__int__", "__float__", "__index__"} | {
    *("nonzero", "argwhere", "unique", "bincount", "masked_select", "equal", "allclose")
}
_READS = {"_local_scalar_dense", "nonzero", "_unique2", "unique_dim", "masked_select", "equal", "bincount"}


class PretendGpu(TorchFunctionMode):
    """Within it tensors live in two places, as on a machine with a GPU, though all bytes are on the CPU.

    What is placed, moved or made with device `cuda` says that it is there, and so does all computed from it.
    An operation that takes tensors of both places, a NumPy view of a GPU tensor and a CPU generator for one
    raise RuntimeError, as torch does; a move is a copy, never the same tensor. `waits` counts what makes the
    host wait for the GPU, by name and source line: values read, shapes that depend on values, copies that are
    not announced as `non_blocking`. Not seen: what runs inside C++ (see `ValueReads`), and what GPU kernels
    compute otherwise.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()

    def place(self, module: nn.Module) -> nn.Module:
        """Say that a module's parameters and buffers are on the GPU."""
        for tensor in (*module.parameters(), *module.buffers()):
            _put(tensor)
        return module

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = dict(kwargs or {})
        if func == _DEVICE:
            return GPU if _is_there(args[0]) else func(*args)
        if func == _IS_CUDA:
            return _is_there(args[0])
        if func in (Tensor.backward, torch.autograd.backward):
            return self._backward(*args, **options)
        if func.__name__ in ("to", "cpu", "cuda"):
            return self._move(func, args, options)
        there = any(map(_is_there, _tensors((args, options))))
        if there:
            self._look(func.__name__, args, options)
        wanted = options.get("device")
        made = wanted is not None and torch.device(wanted).type == "cuda"
        if made:
            if options.get("generator") is not None:
                raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
            options["device"] = "cpu"
            self._count(func.__name__, func.__name__ in ("tensor", "as_tensor"))
        result = func(*args, **options)
        if made or (there and wanted is None):
            for tensor in _tensors(result):
                _put(tensor)
        return result

    def _backward(self, tensors: Any, grad_tensors: Any = None, *_: Any, **options: Any) -> None:
        """Run the engine with the mode on, which is off while it handles a call."""
        outputs = _tensors(tensors)
        given = _tensors((grad_tensors, options.get("gradient"))) or [
            _put(torch.ones_like(output)) for output in outputs
        ]
        kept, graph = bool(options.get("retain_graph")), bool(options.get("create_graph"))
        with self:
            torch.autograd.graph._engine_run_backward(
                tuple(outputs), tuple(given), kept, graph, (), allow_unreachable=True, accumulate_grad=True
            )

    def _move(self, func: Any, args: tuple, options: dict[str, Any]) -> Tensor:
        moved, (tensor, *where) = func.__name__, args
        given = [v for v in (*where, *options.values()) if isinstance(v, (torch.device, str, Tensor))]
        onto_gpu = _is_there(tensor)
        if moved != "to" or given:
            onto_gpu = moved == "cuda" or (moved == "to" and _is_gpu(given[0]))
        fitting = ["cpu" if isinstance(v, (torch.device, str)) else v for v in where]
        options = {k: "cpu" if isinstance(v, (torch.device, str)) else v for k, v in options.items()}
        result = tensor if moved == "cuda" else func(tensor, *fitting, **options)
        if onto_gpu == _is_there(tensor):
            return _put(result) if onto_gpu else result
        self._count(moved, not options.get("non_blocking"))
        result = result.clone() if result is tensor else result
        return _put(result) if onto_gpu else result

    def _look(self, name: str, args: tuple, options: dict[str, Any]) -> None:
        if name in ("numpy", "__array__"):
            raise RuntimeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")
        if name in _TAKES_BOTH:
            index = tree_leaves(args[1]) if name.endswith("item__") else []
            if not _is_there(args[0]) and any(map(_is_there, _tensors(index))):
                raise RuntimeError("indices should be either on cpu or on the same device (cpu)")
            by_value = any(t.dtype in (torch.bool, torch.uint8) or not _is_there(t) for t in _tensors(index))
            self._count(name, by_value)
        else:
            elsewhere = [t for t in _tensors((args, options)) if t.dim() and not _is_there(t)]
            if elsewhere:
                shapes = [tuple(t.shape) for t in elsewhere]
                raise RuntimeError(f"{name}: tensors on cuda:0 and, of shapes {shapes}, on cpu")
        repeats = name == "repeat_interleave" and "output_size" not in options and len(_tensors(args)) > 1
        self._count(name, name in _WAITS or repeats)

    def _count(self, name: str, waits: bool) -> None:
        if waits:
            self.waits[f"{name} at {_line()}"] += 1


class ValueReads(TorchDispatchMode):
    """Counts, by name, the operators that read values to go on: also those inside C++ and backward passes.

    On a GPU the host would wait at each; tensors on the CPU, and checks made on CPUs alone, count here too.
    Not seen: what torch does in another way while a mode looks on, as the backward pass of `prod`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        self.found[name] += name in _READS
        return func(*args, **(kwargs or {}))


def _put(tensor: Tensor) -> Tensor:
    tensor._pretends_gpu = True
    return tensor


def _is_there(tensor: Tensor) -> bool:
    return getattr(tensor, "_pretends_gpu", False)


def _is_gpu(place: torch.device | str | Tensor) -> bool:
    return _is_there(place) if isinstance(place, Tensor) else torch.device(place).type == "cuda"


def _tensors(values: Any) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]


def _line() -> str:
    """Return the innermost line of this package, its tests aside, that led here."""
    return next((f"{name}:{line}" for name, line in _callers() if "/ufo_large/" in name), "elsewhere")


def _callers() -> Iterator[tuple[str, int]]:
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename != __file__:
            yield frame.f_code.co_filename, frame.f_lineno
        frame = frame.f_back
