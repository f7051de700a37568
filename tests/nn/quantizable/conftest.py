"""Eager mode in miniature: observers on the parts of one module, and integer parts in their places."""

from __future__ import annotations

import copy

import pytest
from torch import nn

from qfx.nn import quantized, workflow
from qfx.nn.stubs import DeQuantStub, QuantStub

OBSERVED = (nn.Linear, QuantStub)
BECOMES = {
    nn.Linear: quantized.Linear,
    quantized.FloatFunctional: quantized.QFunctional,
    QuantStub: quantized.Quantize,
    DeQuantStub: quantized.DeQuantize,
}


def prepare(module):
    for part in list(module.modules()):
        part.qconfig = module.qconfig
        if type(part) in (*OBSERVED, quantized.FloatFunctional):
            part.activation_post_process = module.qconfig.activation()
        if type(part) in OBSERVED:
            part.register_forward_hook(lambda part, _, output: part.activation_post_process(output))
    return module


def convert(module):
    made = copy.deepcopy(module)
    for part in list(made.modules()):
        vars(part).pop("qconfig", None) if type(part) not in BECOMES else None
        for name, child in part.named_children():
            if type(child) in BECOMES:
                part._modules[name] = BECOMES[type(child)].from_float(child)
    return made


@pytest.fixture(autouse=True)
def _eager(monkeypatch):
    monkeypatch.setattr(workflow, "_provided", [workflow.Workflow(prepare, prepare, convert)])
