"""Where engines add products in 16-bit pairs: what `sums` says is what they do, with VNNI and held to older CPUs."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from qfx.kernels import LayerFacts, reference
from qfx.kernels.sums import sums
from qfx.qparams import QParams

VNNI = torch.cpu._is_vnni_supported()


def conv(
    op: str = "conv2d",
    into: int = 1,
    out: int = 1,
    groups: int = 8,
    k: object = 3,
    s: object = 1,
    p: object = None,
    d=1,
) -> LayerFacts:
    """A layer by channels of one group."""
    n = int(op[-2])
    kernel = k if isinstance(k, tuple) else (k,) * n
    padding = tuple(x // 2 for x in kernel) if p is None else p if isinstance(p, tuple) else (p,) * n
    stride = s if isinstance(s, tuple) else (s,) * n
    return LayerFacts(op, into * groups, out * groups, groups, kernel, stride, padding, (d,) * n)


def wrong(layer: LayerFacts, engine: str, high: int, w: int) -> bool:
    """Whether codes `high` everywhere times weights `w` everywhere come out wrong."""
    n = len(layer.kernel)
    weight = torch.full((layer.out_channels, layer.group_in, *layer.kernel), w, dtype=torch.int8)
    x = torch.full((1, layer.in_channels, *[8] * n), high, dtype=torch.uint8)
    out = QParams(127.0 * weight[0].numel(), 0 if w > 0 else 255, dtype=torch.quint8)
    torch.backends.quantized.engine = engine
    wrapped = torch._make_per_tensor_quantized_tensor(weight, 1.0, 0)
    how = (layer.stride, layer.padding, layer.dilation, layer.groups)
    packed = getattr(torch.ops.quantized, f"{layer.op}_prepack")(wrapped, None, *how)
    x_q = torch._make_per_tensor_quantized_tensor(x, 1.0, 0)
    found = getattr(torch.ops.quantized, layer.op)(x_q, packed, *out.scalars()).int_repr()
    geometry = dict(zip(("stride", "padding", "dilation", "groups"), how, strict=True))
    return not torch.equal(found, reference.conv(x, weight, None, QParams(1.0), QParams(1.0), out, **geometry))


FBGEMM = [
    *(conv(op, out=out, groups=g) for op in ("conv2d", "conv3d") for out in (1, 2, 3) for g in (2, 4, 8, 12, 16, 20)),
    *(conv(op, out=out, k=k) for op in ("conv2d", "conv3d") for out in (1, 2) for k in (1, 2, 3, 4, 5, 7, 9)),
    *(conv(op, s=s) for op in ("conv2d", "conv3d") for s in (2, 3)),
    *(conv(s=s) for s in ((1, 2), (2, 1), (1, 3))),
    *(conv(op, p=p) for op in ("conv2d", "conv3d") for p in (0, 2)),
    *(conv(k=k) for k in ((3, 5), (1, 3), (7, 3))),
    *(conv("conv3d", k=k) for k in ((1, 3, 3), (3, 3, 5), (3, 5, 5), (5, 3, 3), (3, 7, 7), (7, 5, 5), (3, 5, 3))),
    conv(p=2, d=2),
    conv("conv1d"),
    *(conv(into=a, out=b) for a, b in ((2, 2), (2, 1), (4, 4))),
]


@pytest.mark.skipif("fbgemm" not in torch.backends.quantized.supported_engines, reason="needs fbgemm")
@pytest.mark.parametrize("layer", FBGEMM, ids=str)
def test_fbgemms_depthwise_kernels_add_pairs_on_every_cpu(layer: LayerFacts) -> None:
    found = sums("fbgemm", layer)
    assert (found == "pairs") is layer.fbgemm_depthwise
    for w in (127, -128):
        if found == "pairs":
            assert wrong(layer, "fbgemm", 255, w)
        elif VNNI:
            assert not wrong(layer, "fbgemm", 255, w)
        assert not wrong(layer, "fbgemm", reference.SAFE_CODE, w)  # whatever the weights
    assert wrong(layer, "fbgemm", reference.SAFE_CODE + 2, -128) or found != "pairs"


OTHERS = [
    *(conv(op, groups=g) for op in ("conv1d", "conv2d", "conv3d") for g in (8, 30)),
    *(conv(op, into=a, out=b) for op in ("conv1d", "conv2d") for a, b in ((1, 2), (2, 2), (4, 4), (3, 3))),
    *(conv(op, into=64, out=4, groups=1, k=1) for op in ("conv1d", "conv2d", "conv3d")),
]
HELD = """
import json, sys, warnings, importlib.util
warnings.simplefilter("ignore")
spec = importlib.util.spec_from_file_location("test_sums", sys.argv[1])
here = importlib.util.module_from_spec(spec)
spec.loader.exec_module(here)
found = {}
for engine in ("onednn", "qnnpack"):
    for i, layer in enumerate(here.OTHERS):
        high = {c: any(here.wrong(layer, engine, c, w) for w in (127, -128)) for c in (255, here.reference.SAFE_CODE)}
        found[f"{engine} {i}"] = list(high.values())
print(json.dumps(found))
"""


@pytest.mark.skipif(sys.platform != "linux" or not torch.backends.mkldnn.is_available(), reason="needs oneDNN on x86")
def test_without_vnni_only_what_is_called_exact_is() -> None:
    """oneDNN reads what it may use once, so each kind of CPU needs a process of its own."""
    ever: dict[str, bool] = {}
    for cpu in ("AVX2", "AVX512_CORE"):
        done = subprocess.run(
            [sys.executable, "-c", HELD, __file__],
            env={**os.environ, "ONEDNN_MAX_CPU_ISA": cpu},
            capture_output=True,
            text=True,
            timeout=300,
            check=True,
        )
        for name, (high, safe) in json.loads(done.stdout).items():
            assert not safe
            ever[name] = ever.get(name, False) or high
    for engine in ("onednn", "qnnpack"):
        for i, layer in enumerate(OTHERS):
            assert ever[f"{engine} {i}"] is (sums(engine, layer) != "exact"), (engine, layer)


def test_with_vnni_onednn_is_exact() -> None:
    if VNNI and "ONEDNN_MAX_CPU_ISA" not in os.environ:
        assert not any(wrong(layer, "onednn", 255, w) for layer in OTHERS for w in (127, -128))


@pytest.mark.parametrize("engine", ["fbgemm", "onednn", "qnnpack"])
def test_linear_layers(engine: str) -> None:
    assert sums(engine, LayerFacts("linear", 64, 64)) == ("exact" if engine == "qnnpack" else "pairs without VNNI")


def test_the_safe_code_is_the_largest() -> None:
    w = torch.full((1, 2), -128, dtype=torch.int8)
    assert reference.overflow_risk(w, 0, reference.SAFE_CODE) == 1.0
    assert reference.overflow_risk(w, 0, reference.SAFE_CODE + 1) > 1.0
