from __future__ import annotations

import ast
import copy
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import qfx
from qfx.frames import user_frame, user_place
from qfx.kernels import packing
from qfx.nn.quantized import functional

ROOT = Path(__file__).parents[1]
X = torch.randn(2, 4)
MAPPING = qfx.get_default_qconfig_mapping("x86")


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4)).eval()


def unused_entry() -> None:
    qfx.prepare_fx(network(), qfx.get_default_qconfig_mapping("x86").set_module_name("nope", None), (X,))


def uncalibrated(convert: Callable[..., object]) -> Callable[[], None]:
    prepared = qfx.prepare_fx(network(), MAPPING, (X,))

    def run() -> None:
        convert(prepared)

    return run


def unknown_key() -> None:
    qfx.QConfigMapping.from_dict({"nope": 1})


def never_ran() -> None:
    qfx.MinMaxObserver().calculate_qparams()


def old_name() -> None:
    functional.upsample(torch.quantize_per_tensor(torch.rand(1, 1, 2, 2), 0.1, 0, torch.quint8), 4)


WARNINGS = {
    "prepare": unused_entry,
    "convert": uncalibrated(qfx.convert_fx),
    "reference": uncalibrated(qfx.convert_to_reference_fx),
    "from_dict": unknown_key,
    "observer": never_ran,
    "functional": old_name,
}


@pytest.mark.parametrize("name", WARNINGS)
def test_a_warning_points_to_the_users_line_and_is_shown_once(name: str) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(2):
            WARNINGS[name]()
    (only,) = caught
    assert only.filename == __file__
    function = WARNINGS[name].__code__
    lines = {line for *_, line in function.co_lines() if line is not None}
    assert only.lineno in lines


@pytest.mark.parametrize("how", ["-c", "stdin"])
def test_a_warning_without_a_file_of_the_users_is_a_warning(how: str) -> None:
    code = "import qfx\nqfx.QConfigMapping.from_dict({'nope': 1})\nprint('went on')\n"
    arguments = [sys.executable, "-c", code] if how == "-c" else [sys.executable, "-"]
    said = subprocess.run(arguments, input=code, capture_output=True, text=True, check=True)
    assert "UserWarning" in said.stderr
    assert said.stdout == "went on\n"


def test_filters_see_the_users_module() -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=__name__.replace(".", r"\."))
        never_ran()  # warnings are errors here: this one was filtered


def test_a_copy_warns_where_the_user_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = qfx.prepare_fx(nn.Sequential(nn.Linear(4, 4)).eval(), MAPPING, (X,))
    prepared(X)
    int8 = qfx.convert_fx(prepared)
    engine = int8.get_submodule("0").engine
    monkeypatch.setattr(packing, "supported_engines", lambda: [e for e in packing.ENGINES if e != engine])
    with pytest.warns(UserWarning, match="no engine") as caught:
        copy.deepcopy(int8)
    assert {each.filename for each in caught} == {__file__}


def test_generated_code_is_not_the_users() -> None:
    graph = torch.fx.Graph()
    graph.output(graph.call_function(user_place))
    line, trace = torch.fx.GraphModule(nn.Module(), graph)()
    assert line.rpartition(":")[0] == __file__
    assert trace.splitlines()[0].endswith(", in test_generated_code_is_not_the_users")
    assert trace.splitlines()[1] == "    line, trace = torch.fx.GraphModule(nn.Module(), graph)()"
    frame = user_frame()
    assert frame is not None
    assert frame.f_code.co_name == "test_generated_code_is_not_the_users"


def test_nothing_warns_with_a_count_of_frames() -> None:
    """Decorators and wrappers change the count; ``qfx.frames.warn`` looks instead."""
    found = []
    for folder in ("qfx", "passes", "patterns"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            tree = ast.parse(path.read_text())
            calls = [n for n in ast.walk(tree) if isinstance(n, ast.Attribute) and n.attr in ("warn", "warn_explicit")]
            if calls:
                found.append(path.relative_to(ROOT).as_posix())
    # one for TorchScript, which knows no other
    assert found == ["qfx/frames.py", "qfx/observers/base.py"]
