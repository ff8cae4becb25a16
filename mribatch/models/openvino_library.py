"""Import OpenVINO without its model converter, whose import reports to the maker of OpenVINO over the network."""

import sys
from functools import cache
from typing import Any

from mribatch.errors import ConfigError

__all__ = ["core", "openvino"]

_CONVERTER = "openvino.tools.ovc"  # loads openvino_telemetry and sends an event as soon as it is imported


def openvino() -> tuple[Any, Any]:
    """Return the module `openvino` and its operations. Raises ConfigError where OpenVINO is missing or broken.

    Nothing is converted here, and without the converter the import takes half the time.
    """
    unset = _CONVERTER not in sys.modules
    if unset:
        sys.modules[_CONVERTER] = None  # type: ignore[assignment]  # makes its import fail, which openvino expects
    try:
        import openvino as library
        from openvino import opset13
    except (ImportError, OSError) as err:
        raise ConfigError(
            f"OpenVINO cannot be loaded on this machine ({err}): install its package again, or remove it to score with "
            "TensorFlow"
        ) from err
    finally:
        if unset:
            sys.modules.pop(_CONVERTER, None)
    return library, opset13


@cache
def core() -> Any:
    """Return the `Core` of this process, which is never destroyed. Raises ConfigError as `openvino` does.

    A `Core` gives its thread a stack for signal handlers. If another thread destroys it, or a later one outlives it, that stack
    is gone, and the next signal that Python handles ends the process with a segmentation fault (OpenVINO 2026.4).
    """
    library, _ = openvino()
    return library.Core()
