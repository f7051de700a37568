"""How ops are spelled: ``nn.Conv2d``, ``F.conv2d`` and ``aten.conv2d`` are one op."""

from __future__ import annotations

from qfx.spellings.modules import module as module
from qfx.spellings.spelling import CallSpelling as CallSpelling
from qfx.spellings.spelling import ModuleSpelling as ModuleSpelling
from qfx.spellings.spelling import Signature as Signature
from qfx.spellings.spelling import UnreadableCall as UnreadableCall
from qfx.spellings.table import calls as calls
from qfx.spellings.table import module_spelling as module_spelling
from qfx.spellings.table import opaque as opaque
from qfx.spellings.table import ops_of_modules as ops_of_modules
from qfx.spellings.table import register as register
from qfx.spellings.table import registrations as registrations
from qfx.spellings.table import spelling_of as spelling_of
from qfx.spellings.table import targets as targets
