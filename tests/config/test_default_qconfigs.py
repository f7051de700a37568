"""The ready-made qconfigs that no other test uses: what they make of activations and of weights."""

from __future__ import annotations

import pytest
import torch

import qfx


@pytest.mark.parametrize(
    ("name", "activation", "weight"),
    [
        ("default_embedding_qat_qconfig_4bit", None, (0, 15)),
        ("default_qat_qconfig_v2", (0, 255), (-128, 127)),
        ("default_symmetric_qnnpack_qat_qconfig", (-128, 127), (-127, 127)),
        ("default_per_channel_symmetric_qnnpack_qat_qconfig", (-128, 127), (-127, 127)),
        ("default_activation_only_qconfig", (0, 127), None),
    ],
)
def test_ranges(name: str, activation: tuple[int, int] | None, weight: tuple[int, int] | None) -> None:
    x = torch.linspace(-1, 1, 4000).reshape(4, 1000)
    for factory, expected in zip(getattr(qfx, name), (activation, weight), strict=True):
        module = factory()
        rounded = module(x)
        if expected is None:
            assert torch.equal(rounded, x)
        else:
            assert (module.quant_min, module.quant_max) == expected
            assert max(len(row.unique()) for row in rounded) <= expected[1] - expected[0] + 1


def test_combined_dict_prefers_what_is_added() -> None:
    default = {"a": 1, "b": 2}
    assert qfx.get_combined_dict(default, {"b": 3, "c": 4}) == {"a": 1, "b": 3, "c": 4}
    assert default == {"a": 1, "b": 2}


@pytest.mark.parametrize("name", ["get_fbgemm_backend_config", "get_qnnpack_backend_config"])
def test_backend_quantizes_a_linear_layer(name: str) -> None:
    model, x = torch.nn.Sequential(torch.nn.Linear(4, 4)).eval(), torch.randn(2, 4)
    mapping = qfx.get_default_qconfig_mapping("x86")
    prepared = qfx.prepare_fx(model, mapping, (x,), backend_config=getattr(qfx, name)())
    prepared(x)
    assert qfx.summary(qfx.convert_fx(prepared)).coverage_nodes == 1.0


def test_dict_for_training() -> None:
    made, mapping = qfx.get_default_qat_qconfig_dict("x86"), qfx.get_default_qat_qconfig_mapping("x86")
    assert qfx.qconfig_equals(made[""], mapping.global_qconfig)
    assert [kind for kind, _ in made["object_type"]] == list(mapping.object_type_qconfigs)
