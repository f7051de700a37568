"""The old names are qfx's while installed, and PyTorch's again afterwards."""

from __future__ import annotations

import importlib
import io
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.fx import symbolic_trace
from torch.package import PackageExporter, PackageImporter
from torch.package.package_exporter import PackagingError

import qfx
import qfx.compat
from qfx.compat.table import sources
from qfx.eager import custom


@pytest.fixture
def old_names() -> Iterator[None]:
    qfx.compat.install()
    yield
    qfx.compat.uninstall()


def _run(code: str, *arguments: str) -> str:
    command = [sys.executable, "-W", "error", *arguments, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.usefixtures("old_names")
@pytest.mark.parametrize(
    ("old", "name", "new"),
    [
        ("torch.ao.quantization", "QConfig", qfx.QConfig),
        ("torch.ao.quantization", "prepare", qfx.prepare),
        ("torch.ao.quantization.quantize_fx", "prepare_fx", qfx.prepare_fx),
        ("torch.ao.quantization.quantize", "_DEFAULT_CUSTOM_CONFIG_DICT", custom._DEFAULT_CUSTOM_CONFIG_DICT),
        ("torch.ao.quantization.observer", "HistogramObserver", qfx.HistogramObserver),
        ("torch.ao.quantization.fake_quantize", "FakeQuantize", qfx.FakeQuantize),
        ("torch.ao.quantization.qconfig_mapping", "QConfigMapping", qfx.QConfigMapping),
        ("torch.ao.quantization.backend_config.native", "get_native_backend_config", qfx.get_native_backend_config),
        ("torch.ao.quantization.fx.custom_config", "PrepareCustomConfig", qfx.PrepareCustomConfig),
        ("torch.ao.quantization.fx.tracer", "QuantizationTracer", qfx.QuantizationTracer),
        ("torch.ao.quantization.stubs", "QuantStub", qfx.QuantStub),
        ("torch.ao.quantization.quantize_jit", "quantize_jit", qfx.quantize_jit),
        ("torch.ao.nn.quantized", "Linear", qfx.nn.quantized.Linear),
        ("torch.ao.nn.quantized.modules.conv", "Conv2d", qfx.nn.quantized.Conv2d),
        ("torch.ao.nn.quantized.dynamic.modules.rnn", "LSTM", qfx.nn.quantized.dynamic.LSTM),
        ("torch.ao.nn.intrinsic.qat.modules.conv_fused", "ConvBn2d", qfx.nn.intrinsic.qat.ConvBn2d),
        ("torch.quantization", "QuantStub", qfx.QuantStub),
        ("torch.quantization.quantize_fx", "convert_fx", qfx.convert_fx),
        ("torch.nn.quantized", "FloatFunctional", qfx.nn.quantized.FloatFunctional),
        ("torch.nn.intrinsic.modules.fused", "ConvReLU2d", qfx.nn.intrinsic.ConvReLU2d),
    ],
)
def test_an_old_name_is_ours(old: str, name: str, new: Any) -> None:
    assert getattr(importlib.import_module(old), name) is new


@pytest.mark.usefixtures("old_names")
def test_attributes_work_without_an_import_of_the_module() -> None:
    assert torch.ao.quantization.qconfig.default_qconfig is qfx.default_qconfig
    assert torch.ao.nn.quantized.dynamic.Linear is qfx.nn.quantized.dynamic.Linear
    assert torch.quantization.observer.MinMaxObserver is qfx.MinMaxObserver


@pytest.mark.usefixtures("old_names")
def test_a_name_of_a_function_and_a_module_is_the_function() -> None:
    importlib.import_module("torch.ao.quantization.fuse_modules")
    importlib.import_module("torch.ao.quantization.quantize")
    assert torch.ao.quantization.fuse_modules is qfx.fuse_modules
    assert torch.ao.quantization.quantize is qfx.quantize


@pytest.mark.usefixtures("old_names")
@pytest.mark.parametrize(
    "later", ["pt2e", "pt2e.prepare", "quantizer", "quantizer.x86_inductor_quantizer", "quantize_pt2e"]
)
def test_what_comes_later_says_so(later: str) -> None:
    with pytest.raises(ImportError, match="is not part of qfx yet: quantization of exported programs comes later"):
        importlib.import_module(f"torch.ao.quantization.{later}")


@pytest.mark.usefixtures("old_names")
def test_what_nobody_has_says_so() -> None:
    with pytest.raises(AttributeError, match=r"qfx has no .nothing. of that module; see docs/migrating\.md"):
        _ = torch.ao.quantization.nothing
    with pytest.raises(ModuleNotFoundError, match=r"neither qfx nor this PyTorch has torch\.ao\.quantization\.nowhere"):
        importlib.import_module("torch.ao.quantization.nowhere")


@pytest.mark.usefixtures("old_names")
def test_a_star_import_brings_the_public_names() -> None:
    space: dict[str, Any] = {}
    exec("from torch.ao.quantization import *", space)
    assert space["get_default_qconfig_mapping"] is qfx.get_default_qconfig_mapping
    assert not any(name.startswith("_") for name in space if name != "__builtins__")
    assert "nn" not in space


def test_lists_of_layers_hold_classes_and_packages_list_packages() -> None:
    code = """
import qfx.compat
qfx.compat.install()
import torch.ao.nn
from torch.testing._internal import common_modules
assert torch.ao.nn.__all__ == ["intrinsic", "qat", "quantizable", "quantized", "sparse"]
for family in (torch.ao.nn.qat, torch.ao.nn.quantizable, torch.ao.nn.quantized):
    assert all(isinstance(getattr(family.modules, name), type) for name in family.modules.__all__)
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated:UserWarning")  # torch.package's own
def test_a_package_takes_ours_for_granted_as_it_does_torch() -> None:
    layer = qfx.nn.quantized.Linear(4, 3)
    with pytest.raises(PackagingError), PackageExporter(io.BytesIO()) as refused:
        refused.save_pickle("layers", "linear.pkl", layer)
    qfx.compat.install()
    try:
        written = io.BytesIO()
        with PackageExporter(written) as package:
            package.save_pickle("layers", "linear.pkl", layer)
    finally:
        qfx.compat.uninstall()
    written.seek(0)
    loaded = PackageImporter(written).load_pickle("layers", "linear.pkl")
    assert torch.equal(loaded.weight().int_repr(), layer.weight().int_repr())


def test_everything_is_as_before_afterwards() -> None:
    before = {name: module for name, module in sys.modules.items() if name.startswith(("torch.", "torch.ao"))}
    finders = list(sys.meta_path)
    attributes = dict(vars(torch.ao)), dict(vars(torch.nn))
    qfx.compat.install()
    qfx.compat.install()
    assert qfx.compat.installed()
    importlib.import_module("torch.ao.quantization._learnable_fake_quantize")
    qfx.compat.uninstall()
    qfx.compat.uninstall()
    assert not qfx.compat.installed()
    after = {name: module for name, module in sys.modules.items() if name.startswith(("torch.", "torch.ao"))}
    assert {name: module for name, module in after.items() if before.get(name) is not module} == {}
    assert after.keys() == before.keys()
    assert sys.meta_path == finders
    assert (dict(vars(torch.ao)), dict(vars(torch.nn))) == attributes


def test_every_source_of_the_table_is_a_module() -> None:
    for old, found in sources().items():
        assert old.startswith("torch.")
        for source in found:
            assert importlib.import_module(source)


def test_a_fresh_process_quantizes_under_the_old_names_with_warnings_as_errors() -> None:
    said = _run(
        """
        import qfx.compat
        qfx.compat.install()
        import torch
        from torch.ao.quantization import get_default_qconfig_mapping
        from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx
        import torch.ao.nn.quantized as nnq
        x = torch.randn(8, 4)
        prepared = prepare_fx(torch.nn.Sequential(torch.nn.Linear(4, 4)).eval(), get_default_qconfig_mapping(), (x,))
        prepared(x)
        print(type(getattr(convert_fx(prepared), "0")) is nnq.Linear)
        """
    )
    assert said.strip() == "True"


def test_the_originals_need_not_exist() -> None:
    said = _run(
        """
        import sys
        import torch
        gone = ("torch.ao", "torch.quantization", "torch.nn.quantized", "torch.nn.intrinsic", "torch.nn.qat",
                "torch.nn.quantizable")
        below = lambda name: any(name == each or name.startswith(each + ".") for each in gone)
        for name in [name for name in sys.modules if below(name)]:
            del sys.modules[name]
        for owner, name in ((torch, "ao"), (torch, "quantization"), (torch.nn, "quantized")):
            owner.__dict__.pop(name, None)

        class Gone:
            def find_spec(self, fullname, path=None, target=None):
                if below(fullname):
                    raise ModuleNotFoundError(f"no {fullname}", name=fullname)

        sys.meta_path.insert(0, Gone())
        import qfx.compat
        qfx.compat.install()
        from torch.ao.quantization import QConfig
        import torch.ao.nn.quantized.dynamic
        import torch.quantization.quantize_fx
        print(QConfig.__module__, torch.ao.nn.quantized.dynamic.LSTM.__module__)
        """
    )
    assert said.split() == ["qfx.config.qconfig", "qfx.nn.quantized.dynamic.rnn"]


def test_a_script_runs_unedited(tmp_path: Path) -> None:
    script = tmp_path / "old.py"
    script.write_text(
        "import sys\nfrom torch.ao.quantization import QConfig\nprint(QConfig.__module__, __name__, sys.argv[1:])\n"
    )
    command = [sys.executable, "-m", "qfx.compat", str(script), "a", "--b"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "qfx.config.qconfig __main__ ['a', '--b']"


def test_without_a_script_the_usage_is_printed() -> None:
    done = subprocess.run([sys.executable, "-m", "qfx.compat"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: python -m qfx.compat")


class Looked(nn.Module):
    """A functional layer, a constant among activations, an identity at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.shift, self.out = nn.Parameter(torch.randn(4, 4)), nn.Parameter(torch.randn(4)), nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.nn.functional.linear(x, self.w) + self.shift)


def _converted(x: torch.Tensor) -> Any:
    prepared = qfx.prepare_fx(Looked().eval(), qfx.get_default_qconfig_mapping("x86"), (x,))
    prepared(x)
    return prepared, qfx.convert_fx(prepared)


def test_models_are_laid_out_as_the_originals_while_installed() -> None:
    torch.manual_seed(0)
    x = torch.randn(8, 4)
    plain_prepared, plain = _converted(x)
    torch.manual_seed(0)
    torch.randn(8, 4)
    qfx.compat.install()
    try:
        prepared, made = _converted(x)
        state = made.state_dict()
        weight, bias = torch.ops.quantized.linear_unpack(state["_packed_weight_0"])
        made.load_state_dict(state)
        size = qfx.summary(made).bytes_after
    finally:
        qfx.compat.uninstall()
    assert size == qfx.summary(made).bytes_after  # packed objects count
    assert torch.equal(weight.int_repr(), plain.state_dict()["_packed_weight_0"][0].int_repr())
    assert bias is None
    assert torch.equal(made(x), plain(x))
    assert "shift" in state
    assert "shift_quantized_0" in plain.state_dict()
    observers = [sum(isinstance(m, qfx.HistogramObserver) for m in p.modules()) for p in (plain_prepared, prepared)]
    calls = [len([n for n in p.graph.nodes if n.op == "call_module"]) for p in (plain_prepared, prepared)]
    assert observers[0] <= observers[1]
    assert calls[1] == calls[0] + 2  # the identity and its observer
    # The packed object loads into a model of either layout, and plain tensors into both
    plain.load_state_dict({name: state.get(name, value) for name, value in plain.state_dict().items()})
    assert torch.equal(made(x), plain(x))


@pytest.mark.parametrize("relu", [nn.ReLU(), torch.relu])
def test_a_relu_behind_a_transposed_convolution_is_called_while_installed(relu: Any) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.relu = nn.ConvTranspose2d(3, 4, 2), relu

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.relu(self.up(x))  # type: ignore[no-any-return]

    torch.manual_seed(0)
    model, x = Net().eval(), torch.randn(2, 3, 5, 5)
    prepared = qfx.prepare_fx(model, qfx.get_default_qconfig_mapping("x86"), (x,))
    prepared(x)
    plain = qfx.convert_fx(prepared)
    qfx.compat.install()
    try:
        made = qfx.convert_fx(prepared)
    finally:
        qfx.compat.uninstall()
    assert len(made.graph.nodes) == len(plain.graph.nodes) + 1
    assert torch.equal(made(x), plain(x))
    assert qfx.summary(made).coverage_nodes == 1.0


def test_scales_per_channel_of_transposed_convolutions_are_refused_while_installed() -> None:
    x = torch.randn(2, 3, 5, 5)
    mapping = qfx.QConfigMapping().set_global(qfx.get_default_qconfig("x86"))
    model = nn.Sequential(nn.ConvTranspose2d(3, 4, 2)).eval()
    prepared = qfx.prepare_fx(model, mapping, (x,))
    prepared(x)
    assert qfx.summary(qfx.convert_fx(prepared)).coverage_nodes == 1.0
    qfx.compat.install()
    try:
        with pytest.raises(AssertionError) as raised:
            qfx.prepare_fx(model, mapping, (x,))
        qfx.prepare_fx(model, qfx.get_default_qconfig_mapping("x86"), (x,))
        qfx.prepare_fx(model, mapping.set_module_name("0", None), (x,))
    finally:
        qfx.compat.uninstall()
    assert str(raised.value) == "Per channel weight observer is not supported yet for ConvTranspose{n}d."


def test_a_plain_tracer_keeps_our_layers_whole_while_installed() -> None:
    layer = qfx.nn.quantized.dynamic.Linear(4, 3)
    trained = qfx.nn.qat.Linear(4, 4, qconfig=qfx.default_qat_qconfig)
    model = nn.Sequential(qfx.QuantStub(), trained, layer)
    qfx.compat.install()
    try:
        graph = symbolic_trace(model).graph
    finally:
        qfx.compat.uninstall()
    assert [n.target for n in graph.nodes if n.op.startswith("call")] == ["1", "2"]
    assert not symbolic_trace(layer).graph.find_nodes(op="call_module")  # as before: it is traced through


def test_states_of_recurrent_modules_hold_packed_objects_while_installed() -> None:
    cell, lstm = qfx.nn.quantized.dynamic.GRUCell(3, 4), qfx.nn.quantized.dynamic.LSTM(3, 4)
    assert isinstance(cell.state_dict()["_packed_weight_ih"], tuple)
    qfx.compat.install()
    try:
        states = cell.state_dict(), lstm.state_dict()
    finally:
        qfx.compat.uninstall()
    packed = states[0]["_packed_weight_ih"], states[1]["_all_weight_values.0.param"]
    assert all(isinstance(each, torch.ScriptObject) for each in packed)
    cell.load_state_dict(states[0])
    lstm.load_state_dict(states[1])
