"""Scale uint8 pixels to what a network takes, as a TensorFlow graph."""

from typing import Any

from mribatch.models.format import PIXELS

__all__ = ["scaled"]


def scaled(pixels: Any) -> Any:
    """uint8 pixels as the float32 that a network sees."""
    import tensorflow as tf

    return tf.cast(pixels, tf.float32) * PIXELS["scale"] + PIXELS["offset"]
