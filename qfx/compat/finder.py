"""What an import finds under the old paths beside the modules of the table: PyTorch's own file, or a clear error."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from types import ModuleType

from qfx.compat.table import KEPT, LATER, ROOTS, below, file_of


class Finder:
    """Asked first for everything below the old packages, while `install` is in force."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """How to load a module.

        Raises:
            ImportError: it comes with a later version.
            ModuleNotFoundError: neither qfx nor this PyTorch has it.
        """
        if not below(fullname, ROOTS):
            return None
        if below(fullname, LATER):
            raise ImportError(
                f"{fullname} is not part of qfx yet: quantization of exported programs comes later; use "
                "qfx.prepare_fx and qfx.convert_fx, or call qfx.compat.uninstall() to get PyTorch's own",
                name=fullname,
            )
        if below(fullname, KEPT):
            found = file_of(fullname)
            if found is not None:
                inside = [str(found.parent)] if found.name == "__init__.py" else None
                return spec_from_file_location(fullname, found, submodule_search_locations=inside)
        raise ModuleNotFoundError(f"neither qfx nor this PyTorch has {fullname}", name=fullname)
