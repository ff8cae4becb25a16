"""Quantize a network's OpenVINO graph to int8 with NNCF, from scans that show the range of each activation.

NNCF and OpenVINO are loaded by calls, not before. NNCF's telemetry is never loaded.
"""

import logging
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mribatch.errors import ConfigError
from mribatch.models import directory

__all__ = ["check_installed", "quantized_files"]

_REMEDY = "install it with `pip install 'nncf>=3.4'`"
_TELEMETRY = "openvino_telemetry"  # with it, NNCF reports each quantization to its maker over the network


def check_installed() -> None:
    """Raise ConfigError where NNCF is missing, without loading it."""
    if find_spec("nncf") is None:
        raise ConfigError(f"int8 needs the package nncf, which is not installed here: {_REMEDY}")


def _nncf() -> Any:
    """Return the module `nncf`, without its telemetry. Raises ConfigError where NNCF is missing or broken."""
    from mribatch.models.openvino_library import openvino

    openvino()  # before NNCF imports it with its converter
    kept = sys.modules.get(_TELEMETRY)
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # makes its import fail, which NNCF expects
    try:
        import nncf
    except (ImportError, OSError) as err:
        raise ConfigError(f"int8 needs the package nncf, which cannot be loaded here ({err}): {_REMEDY}") from err
    finally:
        del sys.modules[_TELEMETRY]
        if kept is not None:
            sys.modules[_TELEMETRY] = kept
    nncf.set_log_level(logging.ERROR)
    return nncf


def quantized_files(model: str, digest: str, pixels: NDArray[np.uint8]) -> dict[str, tuple[str, bytes]]:
    """Return the files of a network in int8, each with its name, by their keys in model.json.

    Post-training quantization: Jacob et al. 2018, Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference, arXiv:1712.05877. pixels: scans, (N, side, side, 3) uint8 RGB. Raises ConfigError
    without NNCF, ModelError for weights that do not fit.
    """
    nncf = _nncf()
    from mribatch.models.openvino_library import openvino
    from mribatch.models.openvino_network import build

    graph = build(directory.open_model(model, digest))
    scans = nncf.Dataset([pixels[row : row + 1] for row in range(len(pixels))])
    quantized = nncf.quantize(graph, scans, subset_size=len(pixels), preset=nncf.QuantizationPreset.MIXED)
    library, _ = openvino()
    with tempfile.TemporaryDirectory() as folder:
        places = [Path(folder) / name for name in ("graph.xml", "graph.bin")]
        library.serialize(quantized, *map(str, places))
        stored = [(place.name, place.read_bytes()) for place in places]
        return dict(zip(("graph", "weights"), stored, strict=True))
