from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qfx
from qfx.nn import intrinsic, qat, quantized
from qfx.nn.intrinsic import qat as fused

MAPPING = qfx.get_default_qat_qconfig_mapping("x86")
X = torch.randn(4, 3, 8, 8)


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv3, self.dropout = nn.Conv2d(8, 8, 1), nn.Dropout(0.5)
        self.fc, self.bn3, self.last = nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = F.relu6(self.conv3(F.relu(x + self.bn2(self.conv2(x)))))
        x = self.dropout(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return self.last(F.relu(self.bn3(self.fc(x))))


def prepared(model: nn.Module, x: torch.Tensor = X, mapping: qfx.QConfigMapping = MAPPING) -> Any:
    return qfx.prepare_qat_fx(model, mapping, (x,))


def trained(model: nn.Module, x: torch.Tensor = X, steps: int = 5) -> Any:
    made = prepared(model, x)
    optimizer = torch.optim.SGD(made.parameters(), lr=0.01)
    for _ in range(steps):
        loss = made(torch.randn_like(x)).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return made


def test_every_layer_trains_with_a_rounded_weight() -> None:
    made = prepared(Network().train())
    kinds = {name: type(made.get_submodule(name)) for name in ("conv1", "conv2", "conv3", "fc", "last")}
    assert kinds == {
        "conv1": fused.ConvBnReLU2d,
        "conv2": fused.ConvBn2d,
        "conv3": qat.Conv2d,
        "fc": fused.LinearBn1d,
        "last": qat.Linear,
    }
    assert made.training
    made(X).sum().backward()
    assert all(p.grad is not None for p in made.parameters())


def test_the_users_model_is_left_alone() -> None:
    model = Network().train()
    before, kinds = copy.deepcopy(model.state_dict()), [type(m) for m in model.modules()]
    trained(model)
    assert [type(m) for m in model.modules()] == kinds
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert not any(hasattr(m, "qconfig") for m in model.modules())


@pytest.mark.parametrize("target", ["native", "onednn"])
def test_integers_compute_what_was_trained(target: str) -> None:
    torch.manual_seed(0)
    made = trained(Network().train()).eval().apply(qfx.disable_observer)
    int8 = qfx.convert_fx(made, target=target)
    assert not qfx.explain(int8).float_nodes()
    expected, found = made(X), int8(X)
    step = float(made.get_submodule(str(list(made.graph.nodes)[-2].target)).scale)
    assert (found - expected).abs().max() <= 3 * step
    torch.testing.assert_close(qfx.convert_to_reference_fx(made)(X), expected, rtol=0, atol=2.01 * step)


def test_switched_off_dropout_disappears_and_active_dropout_stays_float() -> None:
    made = trained(Network().train())
    active = qfx.convert_fx(made)
    assert [entry.op for entry in qfx.explain(active).float_nodes()] == ["dropout"]
    assert not qfx.explain(qfx.convert_fx(made.eval())).float_nodes()


def test_batch_norm_that_cannot_fold_stays_apart() -> None:
    for bn in (nn.BatchNorm2d(4, affine=False), nn.BatchNorm2d(4, track_running_stats=False)):
        made = prepared(nn.Sequential(nn.Conv2d(3, 4, 1), bn).train())
        assert type(made.get_submodule("0")) is qat.Conv2d
        made(X).sum().backward()


def test_a_convolution_called_twice_is_not_joined_with_one_batch_norm() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.bn = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.bn(self.conv(self.conv(x)))

    made = prepared(Twice().train())
    assert type(made.get_submodule("conv")) is qat.Conv2d
    assert sum(node.target == "conv" for node in made.graph.nodes) == 2
    int8 = qfx.convert_fx(trained(Twice().train()).eval())
    assert qfx.summary(int8).coverage_macs == 1.0


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_a_batch_norm_of_its_own_is_quantized_whatever_mode_it_is_left_in(relu: bool, training: bool) -> None:
    made = prepared(nn.Sequential(nn.BatchNorm2d(3), *([nn.ReLU()] if relu else [])).train())
    kind = intrinsic.BNReLU2d if relu else nn.BatchNorm2d
    assert type(made.get_submodule("0")) is kind
    made(X)
    int8 = qfx.convert_fx(made.train(training))
    assert type(int8.get_submodule("0")) is (intrinsic.quantized.BNReLU2d if relu else quantized.BatchNorm2d)
    assert not qfx.explain(int8).float_nodes()
    assert made.get_submodule("0").training is training
    reference = qfx.convert_to_reference_fx(made)
    assert type(reference.get_submodule("0")) is kind
    step = float(made.get_submodule(str(list(made.graph.nodes)[-2].target)).scale)
    assert (int8(X) - reference(X)).abs().max() <= 1.01 * step


def test_functional_layers_train_with_a_rounded_weight() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.randn(4, 3, 1, 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.relu(F.conv2d(x, self.w))

    made = trained(Functional().train())
    codes = made(X)
    assert codes.unique().numel() <= 128
    int8 = qfx.convert_fx(made.eval())
    # The input stays in the codes it had in training, as a moving average has forgotten how large it was.
    assert [entry.kernel.split()[0] for entry in qfx.explain(int8) if entry.status == "integer"] == [
        "clamp",
        "quantized.conv2d_relu",
    ]


def test_switches_and_freezing_reach_everything() -> None:
    made = trained(Network().train())
    made.apply(qfx.disable_observer).apply(fused.freeze_bn_stats)
    before = copy.deepcopy(made.state_dict())
    made.train()(100 * X)
    assert all(torch.equal(before[key], value) for key, value in made.state_dict().items())
    made.eval().apply(qfx.disable_fake_quant)
    model = Network().train()
    plain = prepared(model).apply(qfx.disable_fake_quant).eval()
    torch.testing.assert_close(plain(X), model.eval()(X))


def test_training_resumes_where_it_stopped() -> None:
    made = trained(Network().train())
    again = prepared(Network().train())
    again.load_state_dict(made.state_dict())
    made.eval().apply(qfx.disable_observer)
    again.eval().apply(qfx.disable_observer)
    for other in (again, copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert torch.equal(other(X), made(X))
        assert torch.equal(qfx.convert_fx(other)(X), qfx.convert_fx(made)(X))


def test_convert_leaves_the_trained_model_alone() -> None:
    made = trained(Network().train()).eval()
    before = copy.deepcopy(made.state_dict())
    qfx.convert_fx(made)
    assert all(torch.equal(before[key], value) for key, value in made.state_dict().items())


def test_layers_left_out_stay_float() -> None:
    mapping = qfx.get_default_qat_qconfig_mapping("x86").set_module_name("conv1", None).set_object_type(nn.Linear, None)
    made = prepared(Network().train(), mapping=mapping)
    assert type(made.get_submodule("last")) is nn.Linear
    assert not hasattr(made.get_submodule("conv1"), "weight_fake_quant")


def test_a_model_in_eval_mode_is_taken_with_its_statistics_frozen() -> None:
    made = prepared(Network().eval())
    assert made.get_submodule("conv1").freeze_bn
    assert not made.training
