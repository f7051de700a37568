from __future__ import annotations

import pytest
import torch
from torch import nn

from qfx.config import BackendConfig, BackendPatternConfig, DTypeConfig, DTypeWithConstraints, ObservationType
from qfx.config.backend_config.pattern_config import nested
from qfx.errors import ConfigError

INT8 = DTypeConfig(torch.quint8, torch.quint8, torch.qint8, torch.float)


class TestDTypeConfig:
    def test_plain_dtypes_and_constraints(self) -> None:
        limited = DTypeWithConstraints(torch.qint8, quant_min_lower_bound=-127)
        config = DTypeConfig(input_dtype=torch.quint8, weight_dtype=limited)
        assert (config.input_dtype, config.output_dtype, config.weight_dtype) == (torch.quint8, None, torch.qint8)
        assert config.weight_dtype_with_constraints is limited
        assert config.input_dtype_with_constraints == DTypeWithConstraints(torch.quint8)
        assert (config.bias_dtype, config.is_dynamic) == (None, None)

    @pytest.mark.parametrize(
        "config",
        [
            DTypeConfig(),
            INT8,
            DTypeConfig(torch.quint8, is_dynamic=True),
            DTypeConfig(is_dynamic=False),
            DTypeConfig(weight_dtype=DTypeWithConstraints(torch.qint8, -127, 127, 2**-12, 1.0, 0.5, 3)),
        ],
    )
    def test_round_trip(self, config: DTypeConfig) -> None:
        assert DTypeConfig.from_dict(config.to_dict()) == config

    def test_dict_form_says_what_was_set(self) -> None:
        assert DTypeConfig(torch.quint8, is_dynamic=False).to_dict() == {
            "input_dtype": DTypeWithConstraints(torch.quint8),
            "is_dynamic": False,
        }
        assert DTypeConfig.from_dict({"input_dtype": torch.quint8}) == DTypeConfig(torch.quint8)

    @pytest.mark.parametrize("role", ["input_dtype", "output_dtype", "weight_dtype", "bias_dtype"])
    def test_something_else_than_a_dtype(self, role: str) -> None:
        with pytest.raises(ConfigError, match=f"{role} is a torch.dtype.*got 3"):
            DTypeConfig.from_dict({role: 3})

    def test_unknown_keys_warn(self) -> None:
        with pytest.warns(UserWarning, match="ignores 'inputs'"):
            DTypeConfig.from_dict({"inputs": torch.quint8})


class TestBackendPatternConfig:
    def test_defaults(self) -> None:
        config = BackendPatternConfig(nn.Linear)
        assert config.observation_type is ObservationType.OUTPUT_USE_DIFFERENT_OBSERVER_AS_INPUT
        assert config.dtype_configs == []
        assert config.to_dict() == {
            "pattern": nn.Linear,
            "observation_type": config.observation_type,
            "dtype_configs": [],
        }

    def test_dict_form_and_round_trip(self) -> None:
        config = (
            BackendPatternConfig((nn.Linear, nn.ReLU))
            .set_observation_type(ObservationType.OUTPUT_SHARE_OBSERVER_WITH_INPUT)
            .add_dtype_config(INT8)
            .set_root_module(nn.Linear)
            .set_qat_module(nn.Conv1d)
            .set_reference_quantized_module(nn.Conv2d)
            .set_fused_module(nn.Conv3d)
            .set_fuser_method(max)
            ._set_root_node_getter(min)
            ._set_extra_inputs_getter(sum)
            ._set_num_tensor_args_to_observation_type({0: ObservationType.INPUT_OUTPUT_NOT_OBSERVED})
            ._set_input_type_to_index({"bias": 1})
        )
        said = config.to_dict()
        assert said == {
            "pattern": (nn.Linear, nn.ReLU),
            "observation_type": ObservationType.OUTPUT_SHARE_OBSERVER_WITH_INPUT,
            "dtype_configs": [INT8.to_dict()],
            "root_module": nn.Linear,
            "qat_module": nn.Conv1d,
            "reference_quantized_module_for_root": nn.Conv2d,
            "fused_module": nn.Conv3d,
            "fuser_method": max,
            "root_node_getter": min,
            "extra_inputs_getter": sum,
            "num_tensor_args_to_observation_type": {0: ObservationType.INPUT_OUTPUT_NOT_OBSERVED},
            "input_type_to_index": {"bias": 1},
        }
        again = BackendPatternConfig.from_dict(said)
        assert again.to_dict() == said
        assert repr(again) == repr(config)

    def test_the_nested_format(self) -> None:
        pattern = (nn.ReLU, (nn.BatchNorm2d, nn.Conv2d))
        config = BackendPatternConfig()._set_pattern_complex_format(pattern)
        assert config.nested_pattern == BackendPatternConfig((nn.Conv2d, nn.BatchNorm2d, nn.ReLU)).nested_pattern
        assert config.to_dict()["pattern_complex_format"] == pattern
        assert BackendPatternConfig.from_dict(config.to_dict()).nested_pattern == pattern

    def test_one_format_only(self) -> None:
        with pytest.raises(ConfigError, match="Only one of 'pattern' or 'pattern_complex_format'"):
            BackendPatternConfig(nn.Linear)._set_pattern_complex_format(nn.Linear)
        with pytest.raises(ConfigError, match="Only one of"):
            BackendPatternConfig()._set_pattern_complex_format(nn.Linear).set_pattern(nn.Linear)
        with pytest.raises(ConfigError, match="Only one of"):
            BackendPatternConfig.from_dict({"pattern": nn.Linear, "pattern_complex_format": nn.Linear})

    def test_set_dtype_configs_replaces(self) -> None:
        config = BackendPatternConfig(nn.Linear).add_dtype_config(INT8).set_dtype_configs([DTypeConfig()])
        assert config.dtype_configs == [DTypeConfig()]

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"observation_type": 7}, "an observation type is one of ObservationType.OUTPUT.*got 7"),
            ({"dtype_configs": [3]}, "Expected a list of DTypeConfigs, got 3"),
            ({"dtype_configs": 3}, "takes a list, got 3"),
        ],
    )
    def test_mistakes(self, given: dict[str, object], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            BackendPatternConfig.from_dict(given)

    def test_an_observation_type_may_be_its_number(self) -> None:
        config = BackendPatternConfig.from_dict({"observation_type": 1})
        assert config.observation_type is ObservationType.OUTPUT_SHARE_OBSERVER_WITH_INPUT


@pytest.mark.parametrize(
    ("written", "as_nested"),
    [
        ("view", "view"),
        (("a", "b"), ("b", "a")),
        (("a", "b", "c"), ("c", ("b", "a"))),
        (("a", ("b", "c")), (("b", "c"), "a")),
    ],
)
def test_nested(written: object, as_nested: object) -> None:
    assert nested(written) == as_nested


@pytest.mark.parametrize("bad", [(), ("a",), ("a", "b", "c", "d")])
def test_patterns_have_two_or_three_parts(bad: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="Expected a tuple with 2 or 3 elements"):
        BackendConfig().set_backend_pattern_config(BackendPatternConfig(bad))


class TestBackendConfig:
    def test_setting_a_pattern_again_replaces_in_place(self) -> None:
        first = BackendPatternConfig((nn.Conv2d, nn.ReLU))
        other = BackendPatternConfig("view")
        second = BackendPatternConfig()._set_pattern_complex_format((nn.ReLU, nn.Conv2d))
        backend = BackendConfig("n").set_backend_pattern_configs([first, other]).set_backend_pattern_config(second)
        assert backend.configs == [second, other]
        assert list(backend._pattern_complex_format_to_config) == [(nn.ReLU, nn.Conv2d), "view"]

    def test_round_trip(self) -> None:
        pattern = BackendPatternConfig(nn.Linear).add_dtype_config(INT8)
        said = BackendConfig("n").set_backend_pattern_config(pattern).to_dict()
        assert said == {"name": "n", "configs": [pattern.to_dict()]}
        assert BackendConfig.from_dict(said).to_dict() == said
        assert BackendConfig.from_dict({"configs": [pattern]}).configs == [pattern]
        assert BackendConfig().set_name("x").name == "x"

    def test_configs_is_a_new_list(self) -> None:
        backend = BackendConfig()
        backend.configs.append(BackendPatternConfig("view"))
        assert backend.configs == []

    @pytest.mark.parametrize(
        ("mistake", "message"),
        [
            (lambda: BackendConfig().set_backend_pattern_config(BackendPatternConfig()), "needs a pattern"),
            (lambda: BackendConfig().set_backend_pattern_config({}), "holds BackendPatternConfigs, got {}"),
            (lambda: BackendConfig.from_dict({"configs": [3]}), "holds BackendPatternConfigs, got 3"),
            (
                lambda: BackendConfig().set_backend_pattern_config(BackendPatternConfig([nn.Conv2d, nn.ReLU])),
                "a pattern is a tuple, not a list",
            ),
        ],
    )
    def test_mistakes(self, mistake: object, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            mistake()
