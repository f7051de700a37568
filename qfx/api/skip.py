"""A mapping for convert: layers that were prepared and are left float after all."""

from __future__ import annotations

from typing import Any

from torch.fx import GraphModule

from qfx.config import QConfigMapping, qconfig_equals
from qfx.config.resolve import resolve
from qfx.errors import ConfigError
from qfx.passes.annotate.choices import choice

_TABLES = (
    "object_type_qconfigs",
    "module_name_regex_qconfigs",
    "module_name_qconfigs",
    "module_name_object_type_order_qconfigs",
)


def leave_out(gm: GraphModule, qconfig_mapping: QConfigMapping | dict[str, Any]) -> dict[str, Any]:
    """The plan of a prepared model without what a mapping leaves float.

    Args:
        gm: the prepared model. Not changed.
        qconfig_mapping: entries of the mapping for prepare, each with the same configuration or None.

    Raises:
        ConfigError: an entry that prepare did not have, or with another configuration.
    """
    mapping = QConfigMapping.from_dict(qconfig_mapping) if isinstance(qconfig_mapping, dict) else qconfig_mapping
    if not isinstance(mapping, QConfigMapping):
        raise ConfigError(f"qconfig_mapping is a QConfigMapping or its dictionary, got {type(mapping).__name__}")
    plan: Any = gm.plan
    compare(plan["mapping"], mapping)
    instances, left = dict(plan["instances"]), dict[str, str]()
    for node in gm.graph.nodes:
        decided = choice(node)
        if node.name not in instances or decided is None or decided.asked is None:
            continue
        found = resolve(mapping, **decided.asked)
        if found.qconfig is None:
            said = f"the mapping for convert leaves it float ({found.why})"
            left.update(dict.fromkeys(instances.pop(node.name)["nodes"], said))
    return {**plan, "instances": instances, "float": plan["float"] | left, "left_out": left}


def compare(prepared: QConfigMapping, mapping: QConfigMapping) -> None:
    """Refuse a mapping for convert that asks for more than leaving out what prepare configured.

    Raises:
        ConfigError: an entry that prepare did not have, or with another configuration.
    """
    _same("global", prepared.global_qconfig, mapping.global_qconfig)
    for table in _TABLES:
        before, now = getattr(prepared, table), getattr(mapping, table)
        for key, qconfig in now.items():
            if key not in before:
                raise ConfigError(
                    f"Expected key {key} in convert {table} to be in prepare {table}: the mapping for convert can only "
                    "leave out what the one for prepare_fx configured"
                )
            _same(f"{table} {key}", before[key], qconfig)


def _same(entry: str, before: Any, now: Any) -> None:
    if now is not None and not qconfig_equals(before, now):
        raise ConfigError(
            f"Expected convert {entry} to be the same as in prepare, or None: observers are in place already; prepare "
            "the model again to configure it in another way"
        )
