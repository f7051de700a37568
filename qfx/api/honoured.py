"""What of a configuration cannot be honoured: a warning where nothing is left of an entry, an error if strict."""

from __future__ import annotations

from collections.abc import Iterable

from torch.fx import GraphModule, Node

from qfx.api.doubts import listed
from qfx.config import Entry, PrepareCustomConfig, QConfigMapping, Resolved, unused_entries
from qfx.config.qconfig_checks import assert_valid_qconfig
from qfx.config.resolve import GLOBAL, is_default
from qfx.errors import DowngradeError
from qfx.frames import warn
from qfx.graph.attributes import submodule
from qfx.graph.provenance import describe
from qfx.passes.annotate.choices import choice, inner_choices
from qfx.passes.annotate.instances import Found


def check_unused(gm: GraphModule, mapping: QConfigMapping, custom: PrepareCustomConfig, strict: bool) -> None:
    """Warn of entries that match nothing in a fresh capture.

    Raises:
        DowngradeError: `strict`.
    """
    called = {str(node.target): submodule(gm, str(node.target)) for node in gm.graph.find_nodes(op="call_module")}
    custom_classes = {kind for table in custom.float_to_observed_mapping.values() for kind in table}
    wholes = [(path, module) for path, module in called.items() if type(module) in custom_classes]
    used = {found.entry for found in choices(gm)}
    used.update(found.entry for path, whole in wholes for _, found in inner_choices(whole, path, mapping))
    say_unused("QConfigMapping", "in the model", list(map(str, unused_entries(mapping, used))), strict)
    names = [f"non_traceable_module_name {name!r}" for name in custom.non_traceable_module_names if name not in called]
    classes = [
        f"non_traceable_module_class {kind.__name__}"
        for kind in custom.non_traceable_module_classes
        if not any(isinstance(module, kind) for module in called.values())
    ]
    say_unused("PrepareCustomConfig", "that the model calls", names + classes, strict)


def check_transposed(gm: GraphModule) -> None:
    """Refuse weight scales per channel for transposed convolutions, as the original does; called in its layout only.

    Raises:
        PerChannelError: there is such a layer.
    """
    for node in gm.graph.find_nodes(op="call_module"):
        found = choice(node)
        if found is not None:
            assert_valid_qconfig(found.qconfig, submodule(gm, str(node.target)))


def say_unused(owner: str, where: str, unused: list[str], strict: bool) -> None:
    """Warn of entries that match nothing; DowngradeError if `strict`."""
    if not unused:
        return
    message = f"part of the {owner} matches nothing {where}: {listed(unused)}"
    if strict:
        raise DowngradeError(f"{message}. Remove these entries or correct their names.")
    warn(message)


def choices(gm: GraphModule) -> list[Resolved]:
    """What was chosen for each call of a fresh capture; one object a call, which rewrites hand on."""
    return [found for node in gm.graph.nodes if (found := choice(node)) is not None]


def check_honoured(gm: GraphModule, chosen: Iterable[Resolved], found: Found, strict: bool) -> None:
    """Warn of entries that decided for some ops, none of which can be quantized so.

    An op without a pattern is no downgrade under the global entry, which cannot mean that; under an entry that names
    it, it is. What was folded or fused into something else has what it asked for.

    Args:
        gm: the graph, rewritten.
        chosen: `choices` of the capture.
        found: what can be quantized.
        strict: raise for each op refused, too, also where others under the same entry are quantized.

    Raises:
        DowngradeError: `strict`.
    """
    downgrades = [node for node in gm.graph.nodes if _downgrade(found, node) is not None]
    if strict and downgrades:
        raise DowngradeError(
            f"{len(downgrades)} operators cannot be quantized as the mapping says: "
            f"{listed([_said(found, node) for node in downgrades])}. Change their QConfig, or set it to None"
        )
    vain = _in_vain(gm, chosen, found)
    if not vain:
        return
    lines = [f"{entry}, for {_said(found, nodes[0]).removesuffix(f' ({entry})')}" for entry, nodes in vain.items()]
    message = f"nothing can be quantized as parts of the QConfigMapping say: {listed(lines)}"
    if strict:
        raise DowngradeError(f"{message}. Change these entries, or set them to None.")
    warn(f"{message}. What they decide for stays float.")


def _downgrade(found: Found, node: Node) -> str | None:
    left = found.left.get(node.name)
    return left.downgrade if left is not None else None


def _said(found: Found, node: Node) -> str:
    left = found.left.get(node.name)
    return f"{describe(node)}: {left.why if left is not None else 'it computes no float tensor'}"


def _in_vain(gm: GraphModule, chosen: Iterable[Resolved], found: Found) -> dict[Entry, list[Node]]:
    """Entries that ask for quantization and get it nowhere, with the nodes they decided for, the refused ones first."""
    standing: dict[int, list[Node]] = {}
    for node in gm.graph.nodes:
        resolved = choice(node)
        if resolved is not None:
            standing.setdefault(id(resolved), []).append(node)
    floats: dict[Entry, list[Node]] = {}
    honoured: set[Entry] = set()
    for resolved in chosen:
        if resolved.qconfig is None:
            continue
        nodes = standing.get(id(resolved), [])
        folded = not nodes and resolved.entry.kind != GLOBAL
        if folded or any(node in found.of for node in nodes):
            honoured.add(resolved.entry)
        elif nodes:
            floats.setdefault(resolved.entry, []).extend(nodes)
    vain = {}
    for entry, nodes in floats.items():
        nodes.sort(key=lambda node: _downgrade(found, node) != "refused")
        named = entry.kind != GLOBAL and not is_default(entry)
        if entry not in honoured and (named or _downgrade(found, nodes[0]) == "refused"):
            vain[entry] = nodes
    return vain
