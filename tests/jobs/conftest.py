"""Use the tiny model of the integration tests. The jobs start Ray themselves."""

from tests.integration.conftest import tiny_model

__all__ = ["tiny_model"]
