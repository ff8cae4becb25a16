"""Make --requester-pays hold for a whole run: the driver, and all that it starts."""

from collections.abc import Callable
from functools import wraps
from typing import Protocol, TypeVar

from mribatch.stores import uris

__all__ = ["paying"]


class _Payer(Protocol):
    @property
    def requester_pays(self) -> bool: ...


_Config = TypeVar("_Config", bound=_Payer)
_Outcome = TypeVar("_Outcome")


def paying(run: Callable[[_Config], _Outcome]) -> Callable[[_Config], _Outcome]:
    """Decorate a run of a config."""

    @wraps(run)
    def paid(config: _Config) -> _Outcome:
        with uris.paying(config.requester_pays):
            return run(config)

    return paid
