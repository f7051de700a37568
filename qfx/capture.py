"""One door from a model to a graph: the user's model is copied here, once, and never touched again."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Optional

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.fx import Graph, GraphModule, Node
from torch.jit import ScriptModule
from torch.nn.parameter import is_lazy

from qfx.errors import CaptureError, ConfigError, ModelStateError
from qfx.frames import is_between, user_place, warn
from qfx.graph.absent import absent
from qfx.graph.copying import copied, copied_tables
from qfx.graph.hooks import hooks_of, share_hooks
from qfx.graph.kept import DraftGraphModule
from qfx.graph.provenance import LINE_KEY, stamp
from qfx.graph.quick_tracer import QuickTracer
from qfx.graph.ranks import note_ranks
from qfx.graph.training import shown as shown_calls
from qfx.graph.training import stop_dropping, training_calls, training_modules
from qfx.graph.view import GraphView
from qfx.graph.walk import modules_in, tensors_in
from qfx.nn.stubs import is_layer

# Torch's wrappers, whose forward is not the model's: what they are, and what to take instead. By name, because
# importing the compiler for its class takes a second.
_WRAPPERS = {
    "ScriptModule": "is TorchScript and has no Python code to trace; use the module it was made from",
    "OptimizedModule": "is compiled; use the module it was made from (its _orig_mod)",
    "DataParallel": "spreads a model over devices; use the model itself (its .module)",
    "DistributedDataParallel": "spreads a model over processes; use the model itself (its .module)",
}
_COMPILED = "was compiled in place by its compile(); quantize a model that is not, and compile the result"

PREPARE_KEEPS = "PrepareCustomConfig().set_non_traceable_module_names([{}])"
"""How a user of ``prepare_fx`` keeps a module whole."""


LEFT = inspect.Parameter.empty
"""Among examples: an argument that is not given and has its default, though later ones are given."""


class CaptureTracer(QuickTracer):
    """A symbolic tracer that notes the user's source line of every node and can keep modules whole.

    Args:
        skipped_names: qualified names of submodules to keep as leaves.
        skipped_classes: classes whose instances are kept as leaves.
        examples: what the model is called with; an optional argument that is not among it has its default in the trace.
        symbolic_buffers: buffers are symbolic values like parameters, not the tensors they are.
    """

    def __init__(
        self,
        skipped_names: Iterable[str] = (),
        skipped_classes: Iterable[type] = (),
        examples: Sequence[Any] | None = None,
        *,
        symbolic_buffers: bool = False,
    ) -> None:
        super().__init__()
        self.examples = examples
        self.proxy_buffer_attributes = symbolic_buffers
        self.skipped_names = frozenset(skipped_names)
        self.skipped_classes = tuple(skipped_classes)
        self._failed: tuple[BaseException, str] | None = None

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Torch's and our own layers are leaves, TorchScript, and whatever was asked to be."""
        ours = is_layer(m) or isinstance(m, ScriptModule)
        asked = module_qualified_name in self.skipped_names or isinstance(m, self.skipped_classes)
        return ours or asked or super().is_leaf_module(m, module_qualified_name)

    def create_args_for_root(self, root_fn: Any, is_module: bool, concrete_args: Any = None) -> tuple[Any, list[Any]]:
        """The arguments forward is traced with: proxies, but for what is left to its default, or given as None.

        Code may ask whether such an argument is there, which no proxy can answer. The graph says so if another value is
        passed later.
        """
        function, args = super().create_args_for_root(root_fn, is_module, concrete_args)
        if self.examples is None:
            return function, args
        for number, proxy in enumerate(args[1:] if is_module else args):
            node = getattr(proxy, "node", None)
            if node is None or node.target.startswith("*"):
                continue
            given = number < len(self.examples) and self.examples[number] is not LEFT
            left = node.args and not given and not isinstance(node.args[0], torch.Tensor)
            if not left and not (given and self.examples[number] is None):
                continue
            value = node.args[0] if left else None
            args[number + is_module] = value
            said = f"the model was prepared for {node.target}={value!r}; give another value among the example_inputs"
            if value is None:
                self.create_proxy("call_function", absent, (proxy, said), {})
                if node.type is None or isinstance(node.type, str):  # TorchScript would take it for a tensor
                    node.type = Optional[torch.Tensor]  # noqa: UP045  # as code, the other form is not imported
            else:
                torch._assert(proxy == value, said)
        return function, args

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """As torch does it, noting in which submodule an error arose: the scope is gone when it arrives."""
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception as error:
            path = next((path for path, each in modules_in(self.root) if each is m), "")
            if path and not self.failed_in(error):
                self._failed = (error, path)
            raise

    def failed_in(self, error: BaseException) -> str:
        """Path of the innermost submodule that raised `error`; empty for the model's own forward."""
        return self._failed[1] if self._failed is not None and self._failed[0] is error else ""

    def create_node(self, *args: Any, **kwargs: Any) -> Node:
        """A node that knows its source line; ``stack_trace`` says it as torch does."""
        node = super().create_node(*args, **kwargs)
        line, trace = user_place()
        node.meta[LINE_KEY] = line
        if trace:
            node.meta["stack_trace"] = trace
        return node


def capture(
    model: nn.Module,
    *,
    skipped_names: Iterable[str] = (),
    skipped_classes: Iterable[type] = (),
    examples: Sequence[Any] | None = None,
    inference: bool = True,
    draft: bool = False,
    keeps: str = PREPARE_KEEPS,
) -> GraphModule:
    """Trace a copy of `model` into a graph module.

    Args:
        model: any module; a `GraphModule` is copied as it is. Not changed.
        skipped_names: qualified names of submodules to keep whole (not traced into).
        skipped_classes: classes to keep whole.
        examples: what the model is called with, if known; see `CaptureTracer`.
        inference: refuse batch norm and dropout in training mode.
        draft: the result is edited next, not run: generate no code for it.
        keeps: how the caller's user keeps a module whole, for messages; ``{}`` stands for its path.

    Returns:
        A graph module that shares nothing with `model` but its own forward hooks; every node carries its origin.

    Raises:
        ConfigError: `model` is no module.
        ModelStateError: a layer or a call would still use batch statistics or drop values, and `inference` is set, or
            a lazy module has no parameters yet.
        CaptureError: the forward depends on values or takes a form symbolic tracing cannot follow, or is compiled or
            scripted.

    Example:
        >>> gm = capture(nn.Sequential(nn.Linear(2, 3), nn.ReLU()).eval())
        >>> [node.name for node in gm.graph.nodes]
        ['input_1', '_0', '_1', 'output']
    """
    _refuse_kind(model)
    if inference:
        refuse_training(model, skipped_names, skipped_classes)
    if isinstance(model, GraphModule):
        gm = copied(model)
        if not hooks_of(gm):  # torch's graph modules lose theirs when they are copied
            share_hooks(model, gm)
        stamp(gm)
        note_ranks(gm.graph.nodes, examples or ())
        if inference:
            refuse_training_calls(gm)
        return DraftGraphModule.adopt(gm, {}) if draft else gm
    graph = _traced(model, tuple(skipped_names), tuple(skipped_classes), examples, keeps)
    for node in graph.nodes:
        if isinstance(node.type, str):  # an annotation nobody evaluated; as code it would be a name that is not there
            node.type = None
    gm = (DraftGraphModule if draft else GraphModule)(model, graph, type(model).__name__)
    # The constructor shares what the graph refers to with the model; here it becomes our own.
    tables = {name: gm.__dict__[name] for name in ("_parameters", "_buffers", "_modules")}
    gm.__dict__.update(copied_tables(tables, {}))
    gm.training = model.training
    share_hooks(model, gm)
    stamp(gm)
    note_ranks(gm.graph.nodes, examples or ())
    if inference:
        refuse_training_calls(gm)
    return gm


def _traced(
    model: nn.Module, names: tuple[str, ...], classes: tuple[type, ...], examples: Sequence[Any] | None, keeps: str
) -> Graph:
    tracer = CaptureTracer(names, classes, examples)
    try:
        return tracer.trace(model)
    except Exception as error:  # noqa: BLE001  whatever the model's own code raises ends in one error below
        try:
            # ``self.table[:, :x.size(1)]``: a buffer, a tensor to torch's tracer, takes no symbolic size.
            return CaptureTracer(names, classes, examples, symbolic_buffers=True).trace(model)
        except Exception:  # noqa: BLE001
            raise CaptureError(_explain(model, tracer.failed_in(error), error, keeps)) from error


def refuse_training(model: nn.Module, skipped_names: Iterable[str] = (), skipped_classes: Iterable[type] = ()) -> None:
    """Raise if a layer would still normalize by the batch or drop values.

    Args:
        model: the model.
        skipped_names: qualified names of submodules that are kept whole, in the mode they are in.
        skipped_classes: classes that are kept so.

    Raises:
        ModelStateError: names up to three such layers.
    """
    names, classes = tuple(skipped_names), tuple(skipped_classes)
    kept = [name for name, module in modules_in(model) if name in names or isinstance(module, classes)]
    inside = tuple(f"{name}." for name in kept)
    training = [name for name, _ in training_modules(model) if name not in kept and not name.startswith(inside)]
    if training:
        shown = ", ".join(training[:3]) + (f" and {len(training) - 3} more" if len(training) > 3 else "")
        raise ModelStateError(
            f"{type(model).__name__} is in training mode: {shown} would still use batch statistics or drop values. "
            f"Call model.eval() before post-training quantization. {_KEEP}"
        )


def refuse_training_calls(gm: GraphModule) -> None:
    """Raise if a function would still normalize by the batch or drop values.

    ``F.dropout(x)`` drops in a model that was told not to train, as its default says so: that is switched off, with a
    warning.

    Raises:
        ModelStateError: names up to three such calls.
    """
    view = GraphView(gm)
    found = list(training_calls(view))
    if not gm.training:
        dropping = [node for node in found if stop_dropping(view, node)]
        if dropping:
            gm.recompile()
            warn(
                f"{shown_calls(dropping)} would drop values in evaluation mode, too, called with training=True (the "
                "default of F.dropout); a quantized model infers, so this is switched off. Pass "
                f"training=self.training. {_KEEP}"
            )
        found = [node for node in found if node not in dropping]
    if found:
        raise ModelStateError(
            f"{shown_calls(found)} would still use batch statistics or drop values: called with training=True (the "
            "default of F.dropout) or a dropout_p above 0. Pass training=self.training, and call model.eval() before "
            f"post-training quantization. {_KEEP}"
        )


_KEEP = (
    "What is to stay random (Monte Carlo dropout) belongs in a submodule of its own that is kept whole: "
    "PrepareCustomConfig().set_non_traceable_module_names([...])."
)


def _refuse_kind(model: Any) -> None:
    """Raise for what is no module, or a module without a Python forward or parameters of its own."""
    if not isinstance(model, nn.Module):
        got, hint = type(model).__name__, "; wrap it in a module whose forward calls it" if callable(model) else ""
        if isinstance(model, type):
            got, hint = f"the class {model.__name__}", "; make one and pass it"
        elif isinstance(model, ExportedProgram):
            hint = "; pass its module()"
        raise ConfigError(f"a model is a torch.nn.Module, got {got}{hint}")
    if _wrapped(model):
        raise CaptureError(f"this {type(model).__name__} {_wrapped(model)}")
    if any(map(is_lazy, tensors_in(model))):
        lazy = [name for name, tensor in (*model.named_parameters(), *model.named_buffers()) if is_lazy(tensor)]
        raise ModelStateError(
            f"{lazy[0]} of {type(model).__name__} has no values yet, its shape is not known; run the model once on "
            "an input, then quantize it"
        )


def _wrapped(module: nn.Module) -> str:
    """What is the matter with one of torch's wrappers, and what to do; empty for any other module."""
    kinds = [kind.__name__ for kind in type(module).__mro__ if kind.__module__.partition(".")[0] == "torch"]
    return next((_WRAPPERS[kind] for kind in kinds if kind in _WRAPPERS), "")


def _explain(model: nn.Module, path: str, error: Exception, keeps: str) -> str:
    """Where tracing stopped, in the user's words: the innermost line of code that is not torch's, and the way out."""
    line, trace = "", error.__traceback__
    while trace is not None:
        if not is_between(trace.tb_frame):
            line = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
        trace = trace.tb_next
    where = ", ".join(part for part in (line, f"in submodule {path!r}" if path else "") if part) or "in forward"
    whole = (
        f"Keep that submodule whole: {keeps.format(repr(path))}"
        if path
        else f"Move that part into a submodule and keep it whole: {keeps.format('...')}"
    )
    part = model.get_submodule(path)
    words = _wrapped(part) or (_COMPILED if getattr(part, "_compiled_call_impl", None) is not None else "")
    if words:
        return f"{type(model).__name__} cannot be traced: its submodule {path!r}, a {type(part).__name__}, {words}"
    return (
        f"{type(model).__name__} cannot be traced: {error} ({where}). Its code depends on tensor values, or calls "
        f"something that does not take symbolic values. {whole}; or trace the model with torch.export and pass the "
        "graph module."
    )
