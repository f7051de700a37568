"""What observing costs: against one pass over the tensor, against the network it watches, against torch.ao.

Each ratio comes from interleaved runs of both sides. torch.ao rows appear where it is installed.
"""

from __future__ import annotations

import copy
import importlib
import warnings
from collections.abc import Callable
from types import ModuleType

import torch
from torch import Tensor, nn

from benchmarks.harness import Row, interleaved_medians
from qfx.observers import HistogramObserver, MinMaxObserver

KINDS = {
    "normal": lambda n: torch.randn(n),
    "relu": lambda n: torch.randn(n).relu(),
    "relu6": lambda n: (torch.randn(n) * 3).clamp(0, 6),
    "outlier": lambda n: torch.randn(n).index_fill(0, torch.tensor([0]), 40.0),
}


def _torch_ao() -> ModuleType | None:
    try:
        return importlib.import_module("torch.ao.quantization.observer")
    except ImportError:
        return None


def rows() -> list[Row]:
    """Measure every claim about observers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, of the original
        return [*_forward(), *_small(), *_solving(), *_network()]


def _forward() -> list[Row]:
    x = torch.randn(32, 256, 56, 56)
    mine = HistogramObserver()
    runs = {"aminmax": lambda: x.aminmax(), "mine": lambda: mine(x)}
    ao = _torch_ao()
    if ao is not None:
        theirs = ao.HistogramObserver()
        runs["ao"] = lambda: theirs(x)
    seconds = interleaved_medians(runs, rounds=5)
    note = f"(torch.ao: {seconds['ao'] / seconds['aminmax']:.1f} x)" if ao is not None else ""
    name = "histogram forward on (32, 256, 56, 56) / torch.aminmax"
    return [Row(name, seconds["mine"] / seconds["aminmax"], 6.0, "max", note=note)]


def _small() -> list[Row]:
    x = torch.randn(1, 8)
    mine = {"histogram": HistogramObserver(), "min-max": MinMaxObserver()}
    runs = {
        "histc": _repeated(lambda x: torch.histc(x, mine["histogram"].bins), x),
        "aminmax": _repeated(torch.aminmax, x),
        **{name: _repeated(observer, x) for name, observer in mine.items()},
    }
    ao = _torch_ao()
    if ao is not None:
        runs["ao histogram"] = _repeated(ao.HistogramObserver(), x)
        runs["ao min-max"] = _repeated(ao.MinMaxObserver(), x)
    seconds = interleaved_medians(runs)
    found = []
    for name, least, bound in (("histogram", "histc", 8.0), ("min-max", "aminmax", 12.0)):
        note = f"(torch.ao: {seconds['ao ' + name] / seconds[least]:.1f} x)" if ao is not None else ""
        found.append(
            Row(f"{name} forward on (1, 8) / torch.{least}", seconds[name] / seconds[least], bound, "max", note=note)
        )
    return found


def _repeated(observe: Callable[[Tensor], object], x: Tensor) -> Callable[[], None]:
    def run() -> None:
        for _ in range(100):
            observe(x)

    return run


def _solving() -> list[Row]:
    found = []
    ao = _torch_ao()
    for kind, make in KINDS.items():
        x = make(1 << 18)
        mine = HistogramObserver()
        mine(x)
        runs = {"mine": mine.calculate_qparams}
        if ao is not None:
            theirs = ao.HistogramObserver()
            theirs(x)
            runs["ao"] = theirs.calculate_qparams
        seconds = interleaved_medians(runs, rounds=15)
        note = f"(torch.ao: {seconds['ao'] * 1e3:.1f} ms)" if ao is not None else ""
        found.append(Row(f"solving a histogram, {kind}", seconds["mine"] * 1e3, 2.0, "max", "ms", note))
    return found


def _network() -> list[Row]:
    try:
        lite = importlib.import_module("efficientnet_lite_pytorch")
    except ImportError:
        return []
    model = lite.EfficientNet.from_name("efficientnet-lite0").eval()
    watched = _watched(model)
    x = torch.randn(16, 3, 224, 224)
    with torch.no_grad():
        seconds = interleaved_medians({"float": lambda: model(x), "observed": lambda: watched(x)}, rounds=5)
    name = "EfficientNet-Lite0, 16 pictures, a histogram at each activation / float eager"
    return [Row(name, seconds["observed"] / seconds["float"], 1.5, "max")]


def _watched(model: nn.Module) -> nn.Module:
    """Return a copy that observes its input and what each clamp, linear convolution, addition and pooling returns."""
    watched = copy.deepcopy(model)
    for name, module in watched.named_modules():
        if (
            isinstance(module, nn.ReLU6 | nn.Linear | nn.AdaptiveAvgPool2d)
            or name.endswith("_project_conv")
            or type(module).__name__ == "MBConvBlock"
        ):
            _watch(module)
    first = HistogramObserver(quant_min=0, quant_max=127)
    watched.register_forward_pre_hook(lambda module, args: (first(args[0]),))
    return watched


def _watch(module: nn.Module) -> None:
    observers: dict[torch.Size, HistogramObserver] = {}  # a module used at several places has several ranges

    def observe(module: nn.Module, args: object, output: Tensor) -> None:
        observers.setdefault(output.shape, HistogramObserver(quant_min=0, quant_max=127))(output)

    module.register_forward_hook(observe)


if __name__ == "__main__":
    from benchmarks.harness import show

    raise SystemExit(0 if show(rows()) else 1)
