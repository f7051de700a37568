"""A module under an old name."""

from __future__ import annotations

import importlib
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class OldModule(ModuleType):
    """Finds its names in modules of qfx, when they are asked for.

    Args:
        name: the old path.
        sources: modules of qfx, in the order they are asked.
    """

    def __init__(self, name: str, sources: tuple[str, ...]) -> None:
        super().__init__(name, f"{name}, found in {', '.join(sources) or 'its modules'} (qfx.compat).")
        self.__path__: list[str] = []  # a package: whatever else is imported from it is asked of the finder
        self.__spec__ = ModuleSpec(name, None, is_package=True)
        self.__package__ = name
        self._qfx_sources = sources

    def __getattr__(self, name: str) -> Any:
        """What qfx calls so.

        Raises:
            AttributeError: nothing does.
        """
        if name == "__all__":
            return self._public()
        if not name.startswith("__"):
            for source in self._qfx_sources:
                module = importlib.import_module(source)
                if hasattr(module, name):
                    return getattr(module, name)
        raise AttributeError(
            f"{self.__name__} is qfx's now, and qfx has no {name!r} of that module; see docs/migrating.md"
        )

    def _public(self) -> list[str]:
        names: dict[str, None] = {}
        for source in self._qfx_sources:
            module = importlib.import_module(source)
            own = (name for name, value in vars(module).items() if getattr(value, "__module__", None) == source)
            names.update(dict.fromkeys(getattr(module, "__all__", own)))
        found = [name for name in names if not name.startswith("_")]
        # A package of packages, torch.ao.nn, has nothing else to list
        return [name for name in found if not isinstance(getattr(self, name), ModuleType)] or found

    def __dir__(self) -> list[str]:
        """Its public names, and what was put on it."""
        return sorted({*self.__dict__, *self._public()})
