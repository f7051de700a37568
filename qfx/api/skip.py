"""Layers that were prepared and are left float after all: by a mapping for convert, or for lack of a kernel."""

from __future__ import annotations

from typing import Any

from torch.fx import GraphModule

from qfx.api.doubts import listed
from qfx.api.honoured import say_unused
from qfx.config import QConfigMapping, qconfig_equals
from qfx.config.qconfig_mapping import MODULE_NAME_KEY, MODULE_NAME_REGEX_KEY, OBJECT_TYPE_KEY
from qfx.config.resolve import Entry, entries, resolve, unused_entries
from qfx.errors import ConfigError, DowngradeError
from qfx.frames import warn
from qfx.graph.provenance import describe
from qfx.passes.annotate.choices import choice
from qfx.passes.annotate.instances import COMPUTED


def leave_computed(gm: GraphModule, plan: dict[str, Any], strict: bool) -> dict[str, Any]:
    """A plan without the layers whose weight is computed in the graph, which no kernel takes; warns of them.

    Args:
        gm: the prepared model. Not changed.
        plan: its plan, or what `leave_out` made of it.
        strict: refuse them instead.

    Raises:
        DowngradeError: `strict`, and there are some.
    """
    found = {name: each for name, each in plan["instances"].items() if each.get("computed")}
    if not found:
        return plan
    reasons = {name: COMPUTED.format(each["computed"]) for name, each in found.items()}
    lines = listed(f"{describe(node)}: {reasons[node.name]}" for node in gm.graph.nodes if node.name in reasons)
    message = f"{len(found)} operators that were to be quantized stay float: {lines}"
    if strict:
        raise DowngradeError(f"{message}. Make these weights parameters, or leave the layers out of the mapping")
    warn(f"{message}.")
    left = {node: reasons[name] for name, each in found.items() for node in each["nodes"]}
    return {
        **plan,
        "instances": {name: each for name, each in plan["instances"].items() if name not in found},
        "float": plan["float"] | left,
        "left_out": plan.get("left_out", {}) | left,
    }


_KINDS = (OBJECT_TYPE_KEY, MODULE_NAME_KEY, MODULE_NAME_REGEX_KEY)


def leave_out(gm: GraphModule, qconfig_mapping: QConfigMapping | dict[str, Any], strict: bool) -> dict[str, Any]:
    """The plan of a prepared model without what a mapping leaves float.

    Args:
        gm: the prepared model. Not changed.
        qconfig_mapping: the entries of the mapping for prepare, each with the same configuration or None, and any
            further ones with None.
        strict: refuse further entries that match nothing, instead of warning.

    Raises:
        ConfigError: an entry of the mapping for prepare is not there, or an operator has another configuration.
        DowngradeError: `strict`, and an entry matches nothing.
    """
    mapping = QConfigMapping.from_dict(qconfig_mapping) if isinstance(qconfig_mapping, dict) else qconfig_mapping
    if not isinstance(mapping, QConfigMapping):
        raise ConfigError(f"qconfig_mapping is a QConfigMapping or its dictionary, got {type(mapping).__name__}")
    plan: Any = gm.plan
    compare(plan["mapping"], mapping)
    instances, left = dict(plan["instances"]), dict[str, str]()
    used = set(entries(plan["mapping"]))  # those prepare has spoken of
    for node in gm.graph.nodes:
        decided = choice(node)
        if decided is None or decided.asked is None:
            continue
        found = resolve(mapping, **decided.asked)
        used.add(found.entry)
        if node.name not in instances:
            continue
        if found.qconfig is None:
            said = f"the mapping for convert leaves it float ({found.why})"
            left.update(dict.fromkeys(instances.pop(node.name)["nodes"], said))
        elif not qconfig_equals(found.qconfig, decided.qconfig):
            raise ConfigError(f"{describe(node)}: {found.why} of the mapping for convert {_NOT_THE_SAME}")
    say_unused("QConfigMapping for convert", "in the model", list(map(str, unused_entries(mapping, used))), strict)
    return {**plan, "instances": instances, "float": plan["float"] | left, "left_out": left}


_NOT_THE_SAME = (
    "is expected to be the same as in prepare, or None: observers are in place already; prepare the model again to "
    "configure it in another way"
)


def compare(prepared: QConfigMapping, mapping: QConfigMapping) -> None:
    """Refuse a mapping for convert that does not repeat the one for prepare.

    Raises:
        ConfigError: another global configuration; an entry prepare had and convert has not, or not with the same
            configuration or None.
    """
    if not qconfig_equals(prepared.global_qconfig, mapping.global_qconfig):
        raise ConfigError(
            "Expected global qconfigs to be the same in the prepare and convert quantization configs; give convert_fx "
            "the mapping for prepare_fx, and None for what is to stay float"
        )
    for kind in _KINDS:
        before, now = (getattr(each, f"{kind}_qconfigs") for each in (prepared, mapping))
        for key, qconfig in before.items():
            if key not in now:
                raise ConfigError(
                    f"Missing key {Entry(kind, key)} in convert QConfigMapping when it was present in prepare; repeat "
                    "it, or give it None to leave it float"
                )
            if now[key] is not None and not qconfig_equals(qconfig, now[key]):
                raise ConfigError(f"{Entry(kind, key)} of the mapping for convert {_NOT_THE_SAME}")
