"""The stages before annotation, each a tuple of passes: the whole pipeline on one screen."""

from __future__ import annotations

from qfx.config import BackendConfig
from qfx.errors import ConfigError
from qfx.passes.fuse.backend import backend_fusions
from qfx.passes.fuse.batch_norm import FOLD_BATCH_NORM
from qfx.passes.fuse.intrinsic import FUSE_RELU
from qfx.passes.fuse.padding import FOLD_PADDING
from qfx.passes.fuse.parametrized import settle_parametrizations
from qfx.passes.fuse.shared import collect_behind_shared, fold_behind_shared, merge_behind_shared
from qfx.passes.fuse.training import COLLECT_BATCH_NORM
from qfx.passes.normalize import NORMALIZE
from qfx.passes.pipeline import Fact, FunctionPass, Pass, Step
from qfx.passes.spell import spell_out

_NORMALIZED: frozenset[Fact] = frozenset({"normalized"})

FUSE: tuple[Step, ...] = (
    FunctionPass("settle parametrizations", settle_parametrizations, requires=_NORMALIZED),
    FunctionPass("fold batch norm behind shared layers", fold_behind_shared, requires=_NORMALIZED),
    Pass("fold batch norm", FOLD_BATCH_NORM, requires=_NORMALIZED, provides=frozenset({"bn_folded"})),
    Pass("fold padding", FOLD_PADDING, requires=_NORMALIZED),
    FunctionPass("fuse relu behind shared layers", merge_behind_shared, requires=_NORMALIZED),
    Pass("fuse relu", FUSE_RELU, requires=_NORMALIZED, keep_misses=True),
)

# Padding is not folded into what trains: the zeros it adds to a kernel would not stay zeros.
COLLECT: tuple[Step, ...] = (
    Pass("collect batch norm", COLLECT_BATCH_NORM, requires=_NORMALIZED),
    FunctionPass("collect batch norm behind shared layers", collect_behind_shared, requires=_NORMALIZED),
    FunctionPass("fuse relu behind shared layers", merge_behind_shared, requires=_NORMALIZED),
    Pass("fuse relu", FUSE_RELU, requires=_NORMALIZED, keep_misses=True),
)

PLAIN: tuple[Step, ...] = (*NORMALIZE, FunctionPass("spell out", spell_out))

PREPARE: dict[str, tuple[Step, ...]] = {"normalize": PLAIN, "fuse": FUSE}
PREPARE_QAT: dict[str, tuple[Step, ...]] = {"normalize": PLAIN, "fuse": COLLECT}


def prepare_stages(backend: BackendConfig | None, *, is_qat: bool = False) -> dict[str, tuple[Step, ...]]:
    """The stages with the fusions of a user's backend config, which come before our own."""
    stages, rules = PREPARE_QAT if is_qat else PREPARE, backend_fusions(backend, is_qat=is_qat)
    if not rules:
        return stages
    theirs = Pass("fuse backend patterns", rules, requires=_NORMALIZED, keep_misses=True)
    return {**stages, "fuse": (theirs, *stages["fuse"])}


def with_passes(stages: dict[str, tuple[Step, ...]], passes: dict[str, list[Step]] | None) -> tuple[Step, ...]:
    """All steps of some stages, with a user's own after the stage they are named for.

    Raises:
        ConfigError: there is no such stage.
    """
    extra = passes or {}
    unknown = set(extra) - set(stages)
    if unknown:
        raise ConfigError(f"no stage is called {', '.join(sorted(unknown))}; passes= takes {', '.join(stages)}")
    return tuple(step for name, steps in stages.items() for step in (*steps, *extra.get(name, ())))
