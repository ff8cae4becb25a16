"""Scale uint8 pixels to network input, as a TensorFlow graph."""

from typing import Any

from mribatch.models.format import PIXELS

__all__ = ["network_input"]


def network_input(pixels: Any) -> Any:
    """Return uint8 pixels as float32 in -1…1, in the same shape."""
    import tensorflow as tf

    return tf.cast(pixels, tf.float32) * PIXELS["scale"] + PIXELS["offset"]
