"""Whether a graph can run at all."""

from __future__ import annotations

from torch.fx import GraphModule, Node

from qfx.graph.attributes import submodule


def fault(gm: GraphModule) -> str | None:
    """What makes a graph unable to run: a node that stands before what it takes, a call of a module that is not there.

    ``graph.lint`` asks for more, of what only who makes nodes by hand can get wrong, and takes eight times as long.

    Returns:
        The fault in words, or None.
    """
    before: set[Node] = set()
    for node in gm.graph.nodes:
        if not before.issuperset(node.all_input_nodes):
            missing = next(source for source in node.all_input_nodes if source not in before)
            return f"{node} takes {missing}, which does not stand before it"
        before.add(node)
        if node.op == "call_module":
            try:
                submodule(gm, str(node.target))
            except AttributeError:
                return f"{node} calls {node.target}, and there is no such module"
    return None
