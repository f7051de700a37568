"""What callers of the original caught, they still catch."""

from __future__ import annotations

import pytest

from qfx import errors


@pytest.mark.parametrize(
    ("cls", "caught"),
    [
        (errors.ConfigError, (ValueError, AssertionError)),
        (errors.UnsupportedConfigError, (ValueError, AssertionError, NotImplementedError)),
        (errors.ModelStateError, (ValueError, AssertionError)),
        (errors.ObservationError, (ValueError,)),
        (errors.KernelError, (RuntimeError,)),
    ],
)
def test_errors_are_also_the_originals_builtins(cls: type, caught: tuple[type, ...]) -> None:
    for builtin in (errors.QfxError, *caught):
        with pytest.raises(builtin, match="why"):
            raise cls("why")


def test_every_error_has_the_one_root_and_says_what_it_means() -> None:
    found = [each for each in vars(errors).values() if isinstance(each, type)]
    assert len(found) > 10
    assert all(issubclass(each, errors.QfxError) and each.__doc__ for each in found)
