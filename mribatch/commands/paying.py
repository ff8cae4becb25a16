"""Apply --requester-pays to a command: to the driver and to all that it starts."""

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
    """Decorate a command so that its S3 requests follow config.requester_pays."""

    @wraps(run)
    def paid(config: _Config) -> _Outcome:
        with uris.paying(config.requester_pays):
            return run(config)

    return paid
