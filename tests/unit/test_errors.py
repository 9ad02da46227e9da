"""What the user reads when something fails."""

from __future__ import annotations

from papr_hook.diagnostics import Name, error
from papr_hook.errors import InputError, LayoutError, PaprHookError


def test_an_input_error_names_its_line() -> None:
    assert str(InputError("unknown model")) == "unknown model"
    assert str(InputError("unknown model", 7)) == "line 7: unknown model"


def test_a_layout_error_is_one_line_that_names_its_rule() -> None:
    failure = LayoutError(error(Name.TOO_MANY_ENDPOINTS, "40 host endpoints need 40 vPHBs"))
    assert isinstance(failure, PaprHookError)
    assert "40 host endpoints need 40 vPHBs" in str(failure)
    assert "\n" not in str(failure)
    assert failure.diagnostic.name is Name.TOO_MANY_ENDPOINTS
