"""The block pattern that dynamic sparse layers are converted with."""

from __future__ import annotations

import threading
from typing import Any, ClassVar

from qfx.nn.errors import ModuleTypeError

_PATTERNS = ((1, 4), (8, 1))


class LinearBlockSparsePattern:
    """Blocks of this size are meant by every dynamic sparse layer converted inside the ``with`` block.

    The pattern is the process's: other threads wait for the block to end.

    Args:
        row_block_size, col_block_size: 1 and 4 (the default), or 8 and 1.

    Raises:
        ModuleTypeError: other sizes.

    Example:
        >>> with LinearBlockSparsePattern(8, 1):
        ...     LinearBlockSparsePattern.block_size()
        (8, 1)
        >>> LinearBlockSparsePattern.block_size()
        (1, 4)
    """

    rlock: ClassVar = threading.RLock()
    row_block_size: ClassVar[int] = 1
    col_block_size: ClassVar[int] = 4

    def __init__(self, row_block_size: int = 1, col_block_size: int = 4) -> None:
        if (row_block_size, col_block_size) not in _PATTERNS:
            raise ModuleTypeError(
                f"no kernel takes blocks of {row_block_size} rows and {col_block_size} columns; use 1 and 4, or 8 and 1"
            )
        self._wanted = (row_block_size, col_block_size)
        self._before: list[tuple[int, int]] = []

    def __enter__(self) -> None:
        self.rlock.acquire()
        self._before.append(self.block_size())
        self._set(self._wanted)

    def __exit__(self, *raised: Any) -> None:
        self._set(self._before.pop())
        self.rlock.release()

    @staticmethod
    def _set(sizes: tuple[int, int]) -> None:
        LinearBlockSparsePattern.row_block_size, LinearBlockSparsePattern.col_block_size = sizes

    @staticmethod
    def block_size() -> tuple[int, int]:
        """Rows and columns of the blocks that are meant now."""
        return LinearBlockSparsePattern.row_block_size, LinearBlockSparsePattern.col_block_size
