"""Walking submodules by hand gives what torch's own walks give, in the same order."""

from __future__ import annotations

from torch import nn

from qfx.graph.walk import modules_in, tensors_in


def shared_parts() -> nn.Module:
    shared = nn.Linear(2, 2)
    model = nn.Sequential(nn.Sequential(shared, nn.BatchNorm1d(2)), nn.ReLU(), nn.Sequential(nn.Sequential(shared)))
    model.register_module("nothing", None)
    return model


def test_names_modules_and_order_are_those_of_torch() -> None:
    model = shared_parts()
    assert list(modules_in(model)) == list(model.named_modules())


def test_a_module_in_two_places_is_there_twice_where_aliases_are_asked_for() -> None:
    model = shared_parts()
    found = list(modules_in(model, aliases=True))
    assert found == list(model.named_modules(remove_duplicate=False))
    assert [path for path, module in found if isinstance(module, nn.Linear)] == ["0.0", "2.0.0"]


def test_every_parameter_and_buffer_is_met() -> None:
    model = shared_parts()
    wanted = {id(t) for t in (*model.parameters(), *model.buffers())}
    assert {id(t) for t in tensors_in(model)} == wanted
    assert len(wanted) == 7


def test_depth_does_not_matter() -> None:
    model: nn.Module = nn.Identity()
    for _ in range(3000):
        model = nn.Sequential(model)
    assert sum(1 for _ in modules_in(model)) == 3001
    assert not list(tensors_in(model))
