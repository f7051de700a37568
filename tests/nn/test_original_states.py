"""State dicts that the original's modules saved load into ours, and so do whole modules that it pickled: files made
once, by ``make_fixtures.py``."""

from __future__ import annotations

import copy
import pickle
import warnings
from pathlib import Path

import pytest
import torch

import qfx.compat
from qfx.kernels.packing import packed_by
from qfx.nn import quantized

FIXTURES = Path(__file__).parent / "fixtures"
MODULES = sorted(path.stem for path in (FIXTURES / "modules").glob("*.pt"))
nnqd = quantized.dynamic

BLANK = {
    "lstm": lambda: quantized.LSTM(4, 5),
    "linear": lambda: quantized.Linear(4, 8, engine="fbgemm"),
    "conv2d": lambda: quantized.Conv2d(4, 8, 3, engine="fbgemm"),
    "embedding_8bit": lambda: quantized.Embedding(10, 12),
    "embedding_4bit": lambda: quantized.Embedding(10, 12, dtype=torch.quint4x2),
    "embedding_bag_8bit": lambda: quantized.EmbeddingBag(10, 12),
    "embedding_bag_4bit": lambda: quantized.EmbeddingBag(10, 12, dtype=torch.quint4x2),
}
for _kind, _dtype in (("int8", torch.qint8), ("half", torch.float16)):
    BLANK |= {
        f"dynamic_linear_{_kind}": lambda dtype=_dtype: nnqd.Linear(4, 8, dtype=dtype, engine="fbgemm"),
        f"dynamic_lstm_{_kind}": lambda dtype=_dtype: nnqd.LSTM(4, 5, bidirectional=True, dtype=dtype, engine="fbgemm"),
        f"dynamic_gru_{_kind}": lambda dtype=_dtype: nnqd.GRU(4, 5, dtype=dtype, engine="fbgemm"),
    }
    for _cell in ("LSTMCell", "GRUCell", "RNNCell"):
        BLANK[f"dynamic_{_cell.lower()}_{_kind}"] = lambda cell=_cell, dtype=_dtype: getattr(nnqd, cell)(
            4, 5, dtype=dtype, engine="fbgemm"
        )


def loaded(name):
    """The file; torch itself warns of quantized tensors while it reads one, and packs what the file has packed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Recurrent modules saved packed objects, which the safe reader refuses.
        return torch.load(FIXTURES / f"{name}.pt", weights_only=False)


def check(found, expected):
    """Codes exactly; floats as close as another CPU's kernels come."""
    if isinstance(expected, tuple):
        for one, other in zip(found, expected, strict=True):
            check(one, other)
    elif expected.is_floating_point():
        torch.testing.assert_close(found, expected)
    else:
        assert torch.equal(found.int_repr(), expected)


def test_every_file_is_read():
    assert {path.stem for path in FIXTURES.glob("*.pt")} == set(BLANK)
    assert set(BLANK) < set(MODULES)
    assert all(path.stat().st_size < 30_000 for path in FIXTURES.rglob("*.pt"))


@pytest.mark.parametrize("name", BLANK)
@pytest.mark.parametrize("selected", ["fbgemm", "onednn", "qnnpack"])
def test_the_state_loads_strictly_and_silently_and_computes_what_it_did(name, selected):
    # Half floats are packed again while torch reads the file, and fbgemm alone packs them.
    with packed_by("fbgemm" if name.endswith("half") else selected):
        file = loaded(name)
    # A module in parts packs for the engine selected, so that must be the one of the file too.
    with packed_by("fbgemm" if name == "lstm" else selected):
        module = BLANK[name]()
        module.load_state_dict(file["state"], strict=True)
        check(module(*file["inputs"]), file["expected"])
        again = BLANK[name]()
        again.load_state_dict(module.state_dict(), strict=True)
        check(again(*file["inputs"]), file["expected"])


@pytest.fixture
def old_names():
    qfx.compat.install()
    yield
    qfx.compat.uninstall()


@pytest.mark.usefixtures("old_names")
@pytest.mark.parametrize("name", MODULES)
def test_a_pickled_module_loads_under_the_old_names_and_computes_what_it_did(name):
    with packed_by("fbgemm"):
        file = loaded(f"modules/{name}")
    module = file["module"]
    assert all(type(part).__module__.startswith(("qfx.", "torch.nn.modules.")) for part in module.modules())
    check(module(*file["inputs"]), file["expected"])
    # It is whole: what a copy and a pickle of ours need is there too, and it can be shown.
    again = pickle.loads(pickle.dumps(copy.deepcopy(module)))
    assert repr(again) == repr(module)
    check(again(*file["inputs"]), file["expected"])
