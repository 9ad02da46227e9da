"""Every procedure of libvirt's protocol has a line in the table, the manual and, if it is acted on, the code."""

from __future__ import annotations

import pytest

from papr_hook.gateway.procedures import NAMES, Action, describe_procedures, find_action
from papr_hook.gateway.protocol import Procedure
from papr_hook.gateway.rewrite import REWRITES
from tests.helpers.paths import PROJECT

FORWARDED = (Action.KEEP_STATE, Action.IGNORE)
MARK = "<!-- The rest of this page is made from papr_hook/gateway/procedures.py. -->\n\n"


def test_what_is_acted_on_is_what_the_table_says() -> None:
    """The gateway rewrites the calls of these procedures, and no others."""
    acted = {name for name in NAMES if find_action(name) not in FORWARDED}
    assert {Procedure(number).name for number in REWRITES} == acted


@pytest.mark.parametrize("procedure", Procedure)
def test_numbers(procedure: Procedure) -> None:
    """A number is the place in the table."""
    assert NAMES[procedure - 1] == procedure.name


def test_a_procedure_that_libvirt_does_not_have() -> None:
    """An unknown name has no action, rather than the usual one."""
    with pytest.raises(KeyError):
        find_action("DOMAIN_FROM_THE_FUTURE")


def test_the_manual_has_the_table(request: pytest.FixtureRequest) -> None:
    """docs/gateway.md ends with all procedures; --regenerate writes them again."""
    page = PROJECT / "docs" / "gateway.md"
    head, mark, _ = page.read_text().partition(MARK)
    assert mark
    if request.config.getoption("--regenerate"):
        page.write_text(head + mark + describe_procedures())
    assert page.read_text() == head + mark + describe_procedures()
