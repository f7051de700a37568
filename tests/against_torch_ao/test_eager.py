"""A model quantized in eager mode computes what the original's does, bit for bit, on every engine."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

import qfx
from qfx.nn import quantized

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    ao = pytest.importorskip("torch.ao.quantization")
    theirs = pytest.importorskip("torch.ao.nn.quantized")

pytestmark = [
    pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Please use quant_min and quant_max:UserWarning"),
    pytest.mark.filterwarnings("ignore:reduce_range will be deprecated:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*deprecated, please use is_dynamic instead:UserWarning"),
    pytest.mark.filterwarnings("ignore:Currently, qnnpack incorrectly ignores reduce_range:UserWarning"),
    pytest.mark.filterwarnings("ignore:TypedStorage is deprecated:UserWarning"),
    # the original's, of attention; and the kernel's, of LSTM, once a process
    pytest.mark.filterwarnings("ignore:must run observer before calling calculate_qparams:UserWarning"),
    pytest.mark.filterwarnings("ignore:All inputs of this cat operator must share:UserWarning"),
]
ENGINES = ("x86", "fbgemm", "onednn", "qnnpack")


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param not in torch.backends.quantized.supported_engines:
        pytest.skip(f"this build of torch has no {request.param}")
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = request.param
    yield request.param
    torch.backends.quantized.engine = before


class Block(nn.Module):
    """A residual block: batch norm, relus, an addition, a concatenation."""

    def __init__(self, functional: Any) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu1 = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.add, self.cat = functional(), functional()
        self.pool, self.fc, self.relu2 = nn.AdaptiveAvgPool2d(2), nn.Linear(64, 10), nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu1(self.bn1(self.conv1(x)))
        x = self.add.add_relu(x, self.bn2(self.conv2(x)))
        x = self.cat.cat([x, x], 1)
        return self.relu2(self.fc(self.pool(x).flatten(1)))


FUSED = [["conv1", "bn1", "relu1"], ["conv2", "bn2"], ["fc", "relu2"]]


def per_tensor(library: Any, engine: str) -> Any:
    return library.default_qconfig


def per_channel(library: Any, engine: str) -> Any:
    return library.get_default_qconfig(engine)


def randomized(model: nn.Module, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            nn.init.normal_(module.weight, 1, 0.2)
            nn.init.normal_(module.bias, 0, 0.2)
    return model


def built(make: Callable[[Any], nn.Module], functional: Any) -> nn.Module:
    torch.manual_seed(0)
    return randomized(make(functional))


def drawn(*shape: int) -> torch.Tensor:
    """The same values on every call: the original draws random weights while it converts, we do not."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def assert_same_state(mine: nn.Module, original: nn.Module) -> None:
    state, expected = mine.state_dict(), original.state_dict()
    assert list(state) == list(expected)
    for key, value in expected.items():
        if not isinstance(value, torch.Tensor):
            continue
        if state[key] is None:  # no bias stays none; the original's qnnpack turns it into zeros
            assert not value.any()
        elif value.is_quantized:
            assert torch.equal(state[key].int_repr(), value.int_repr()), key
        else:
            torch.testing.assert_close(state[key], value, rtol=0, atol=0, msg=key)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("qconfig", [per_tensor, per_channel])
def test_static(engine: str, qconfig: Callable[[Any, str], Any], fused: bool) -> None:
    def run(library: Any, functional: Any) -> tuple[nn.Module, torch.Tensor]:
        model = built(Block, functional).eval()
        if fused:
            model = library.fuse_modules(model, FUSED)
        model = library.QuantWrapper(model)
        model.qconfig = qconfig(library, engine)
        prepared = library.prepare(model)
        for x in drawn(3, 4, 3, 8, 8):
            prepared(x)
        converted = library.convert(prepared)
        return converted, converted(drawn(4, 3, 8, 8) * 2)

    (mine, result), (original, expected) = run(qfx, quantized.FloatFunctional), run(ao, theirs.FloatFunctional)
    assert expected.unique().numel() > 10  # not everything is clamped away
    assert torch.equal(result, expected)
    assert_same_state(mine, original)


class Layers(nn.Module):
    """One of nearly everything with a quantized form."""

    def __init__(self, functional: Any) -> None:
        super().__init__()
        self.conv1d, self.conv3d = nn.Conv1d(4, 6, 3), nn.Conv3d(1, 2, 1)
        self.up = nn.ConvTranspose2d(6, 4, 2)
        self.norms = nn.ModuleList(
            [nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.InstanceNorm2d(4, affine=True), nn.LayerNorm(7)]
        )
        self.clamps = nn.ModuleList([nn.Hardswish(), nn.ELU(0.7), nn.LeakyReLU(0.2), nn.ReLU6()])
        self.drop, self.mul = nn.Dropout(), functional()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv1d(x)
        x = self.up(x.unsqueeze(2))
        for module in (*self.norms, *self.clamps):
            x = module(x)
        x = self.conv3d(x.unsqueeze(1)).flatten(1, 2)
        return self.mul.mul(self.drop(x), x)


def test_layers(engine: str) -> None:
    def run(library: Any, functional: Any) -> tuple[nn.Module, torch.Tensor]:
        model = library.QuantWrapper(built(Layers, functional)).eval()
        model.qconfig = library.default_qconfig
        prepared = library.prepare(model)
        prepared(drawn(4, 4, 8))
        converted = library.convert(prepared)
        return converted, converted(drawn(4, 4, 8) * 2)

    (mine, result), (original, expected) = run(qfx, quantized.FloatFunctional), run(ao, theirs.FloatFunctional)
    assert expected.unique().numel() > 10
    assert torch.equal(result, expected)
    assert [type(m).__name__ for m in mine.modules()] == [type(m).__name__ for m in original.modules()]


@pytest.mark.parametrize(("slope", "original_errs"), [(1.3, 0.1), (0.25, 1.0)])
def test_prelu_differs_for_the_better(slope: float, original_errs: float) -> None:
    """The original's kernel takes 1, saturated to the parameters of the slopes, for the slope above zero."""

    def run(library: Any) -> tuple[nn.Module, torch.Tensor]:
        model = library.QuantWrapper(nn.PReLU(init=slope)).eval()
        model.qconfig = library.QConfig(library.default_observer, library.default_observer)
        prepared = library.prepare(model)
        prepared(drawn(64, 64))
        return library.convert(prepared), drawn(64, 64)

    errors = []
    for library in (qfx, ao):
        converted, x = run(library)
        errors.append(float((converted(x) - nn.functional.prelu(x, torch.tensor([slope]))).detach().abs().max()))
    assert errors[0] < 0.1  # two steps of the codes
    assert errors[1] < original_errs or slope < 1
    assert errors[1] > original_errs or slope > 1


def test_reference(engine: str) -> None:
    def run(library: Any) -> torch.Tensor:
        torch.manual_seed(0)
        parts = [nn.Conv2d(3, 4, 3), nn.Conv1d(4, 3, 1), nn.ConvTranspose1d(3, 2, 2), nn.Linear(5, 3)]
        model = nn.ModuleList(parts).eval()
        model.qconfig = library.default_qconfig
        converted = library.convert(library.prepare(model), is_reference=True)
        x = converted[0](drawn(2, 3, 6, 6)).flatten(2)[..., :4]
        return converted[3](converted[2](converted[1](x)))

    assert torch.equal(run(qfx), run(ao))


def trained(library: Any, functional: Any, engine: str, steps: int = 4) -> tuple[nn.Module, nn.Module, list[float]]:
    model = library.QuantWrapper(built(Block, functional)).train()
    model.module = library.fuse_modules_qat(model.module, FUSED)
    model.qconfig = library.get_default_qat_qconfig(engine)
    prepared = library.prepare_qat(model)
    optimizer, losses = torch.optim.SGD(prepared.parameters(), lr=0.05, momentum=0.9), []
    torch.manual_seed(1)
    for _ in range(steps):
        x, y = torch.randn(8, 3, 8, 8), torch.randint(0, 10, (8,))
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(prepared(x), y)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return prepared, library.convert(prepared.eval()), losses


def test_qat(engine: str) -> None:
    _, mine, losses = trained(qfx, quantized.FloatFunctional, engine)
    _, original, expected_losses = trained(ao, theirs.FloatFunctional, engine)
    torch.testing.assert_close(losses, expected_losses, rtol=0, atol=1e-5)
    x = drawn(8, 3, 8, 8) * 3
    assert original(x).unique().numel() > 5
    assert torch.equal(mine(x), original(x))
    assert_same_state(mine, original)


def test_prepared_states_load_into_each_other() -> None:
    mine, *_ = trained(qfx, quantized.FloatFunctional, "x86", steps=1)
    original, *_ = trained(ao, theirs.FloatFunctional, "x86", steps=1)
    assert list(mine.state_dict()) == list(original.state_dict())
    mine.load_state_dict(original.state_dict())
    original.load_state_dict(mine.state_dict())


class Recurrent(nn.Module):
    def __init__(self, functional: Any) -> None:
        super().__init__()
        self.lstm, self.gru = nn.LSTM(6, 8, num_layers=2, bidirectional=True), nn.GRU(16, 8)
        self.cells = nn.ModuleList([nn.LSTMCell(8, 8), nn.GRUCell(8, 8), nn.RNNCell(8, 8)])
        self.fc, self.relu = nn.Linear(8, 5), nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.gru(self.lstm(x)[0])[0][-1]
        x = self.cells[0](x)[0]
        return self.relu(self.fc(self.cells[2](self.cells[1](x))))


@pytest.mark.parametrize("dtype", [torch.qint8, torch.float16])
def test_dynamic(engine: str, dtype: torch.dtype) -> None:
    def run(library: Any) -> torch.Tensor:
        return library.quantize_dynamic(built(Recurrent, None).eval(), dtype=dtype)(drawn(5, 3, 6))

    result = run(qfx)
    if dtype == torch.float16:  # fbgemm alone has them: the original needs it selected
        torch.backends.quantized.engine = "fbgemm"
    assert torch.equal(result, run(ao))


@pytest.mark.parametrize("name", ["default_dynamic_qconfig", "per_channel_dynamic_qconfig", "float16_dynamic_qconfig"])
def test_dynamic_spec(name: str) -> None:
    def run(library: Any) -> torch.Tensor:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 3))).eval()
        model = library.fuse_modules(model, ["0", "1"])
        spec = {"0": getattr(library, name), "2": getattr(library, name), "2.1": None}
        quantized_model = library.quantize_dynamic(model, spec)
        assert type(quantized_model[2][1]) is nn.Linear
        return quantized_model(drawn(4, 6))

    assert torch.equal(run(qfx), run(ao))


class LongShortTerm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.fc = nn.LSTM(6, 8, num_layers=2), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.lstm(x)[0])


class Attentive(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention, self.fc = nn.MultiheadAttention(8, 2), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.attention(x, x, x)[0])


@pytest.mark.parametrize(("make", "features"), [(LongShortTerm, 6), (Attentive, 8)])
def test_custom_modules_by_default(engine: str, make: Callable[[], nn.Module], features: int) -> None:
    def run(library: Any) -> tuple[nn.Module, torch.Tensor]:
        torch.manual_seed(0)
        model = library.QuantWrapper(make()).eval()
        model.qconfig = library.get_default_qconfig(engine)
        prepared = library.prepare(model)
        for x in drawn(3, 5, 2, features):
            prepared(x)
        converted = library.convert(prepared)
        return converted, converted(drawn(5, 2, features))

    (mine, result), (original, expected) = run(qfx), run(ao)
    assert expected.unique().numel() > 10
    assert torch.equal(result, expected)
    assert [type(m).__name__ for m in mine.modules()] == [type(m).__name__ for m in original.modules()]


@pytest.mark.parametrize("bits", ["", "_4bit"])
def test_embeddings(bits: str) -> None:
    class Embeddings(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.bag = nn.Embedding(20, 12), nn.EmbeddingBag(20, 12, mode="sum")
            if bits:  # the original reads 4-bit tables of an Embedding as bytes
                self.table.qconfig = None

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.table(x).sum(1) + self.bag(x)

    def run(library: Any) -> list[torch.Tensor]:
        torch.manual_seed(0)
        model = Embeddings().eval()
        x = torch.randint(0, 20, (4, 3))
        qconfig = getattr(library, f"float_qparams_weight_only_qconfig{bits}")
        spec = {nn.Embedding: qconfig, nn.EmbeddingBag: qconfig}
        dynamic = library.quantize_dynamic(model, spec)
        model.qconfig = qconfig
        return [dynamic(x), library.convert(library.prepare(model))(x)]

    assert all(map(torch.equal, run(qfx), run(ao)))


@pytest.mark.parametrize("bits", ["", "_4bit"])
def test_embeddings_in_training(bits: str) -> None:
    def run(library: Any) -> tuple[torch.Tensor, torch.Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.EmbeddingBag(20, 12, mode="sum"), library.QuantStub(), nn.Linear(12, 4))
        model.append(library.DeQuantStub())
        model.qconfig = library.get_default_qat_qconfig("x86")
        model[0].qconfig = getattr(library, f"default_embedding_qat_qconfig{bits}")
        prepared = library.prepare_qat(model.train(), mapping=library.get_embedding_qat_module_mappings())
        optimizer = torch.optim.SGD(prepared.parameters(), lr=0.1)
        torch.manual_seed(1)
        x = torch.randint(0, 20, (4, 3))
        for _ in range(3):
            optimizer.zero_grad()
            loss = prepared(x).square().mean()
            loss.backward()
            optimizer.step()
        mapping = library.get_embedding_static_quant_module_mappings()
        return loss.detach(), library.convert(prepared.eval(), mapping=mapping)(x)

    torch.testing.assert_close(run(qfx)[0], run(ao)[0], rtol=0, atol=1e-6)
    assert torch.equal(run(qfx)[1], run(ao)[1])


@pytest.mark.parametrize("dynamic", [True, False])
def test_sparse(dynamic: bool) -> None:
    engine = "qnnpack" if dynamic else "fbgemm"  # the only ones that have these kernels
    if engine not in torch.backends.quantized.supported_engines:
        pytest.skip(f"this build of torch has no {engine}")

    def run(library: Any) -> torch.Tensor:
        torch.manual_seed(0)
        model = nn.Sequential(library.QuantStub(), nn.Linear(16, 8), library.DeQuantStub()).eval()
        with torch.no_grad():
            model[1].weight[:, 4:12] = 0
        model[1].sparse_params = {"sparse_block_shape": (1, 4)}
        if dynamic:
            library.propagate_qconfig_(model, {"1": library.default_dynamic_qconfig})
            mapping = library.get_default_dynamic_sparse_quant_module_mappings()
            return library.convert(model, mapping=mapping)(drawn(3, 16))
        model.qconfig = library.default_qconfig
        prepared = library.prepare(model)
        prepared(drawn(3, 16))
        mapping = library.get_default_static_quant_module_mappings()
        return library.convert(prepared, mapping=mapping | library.get_default_static_sparse_quant_module_mappings())(
            drawn(3, 16)
        )

    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = engine
    try:
        assert torch.equal(run(qfx), run(ao))
    finally:
        torch.backends.quantized.engine = before
