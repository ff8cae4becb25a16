"""The tiny model of the integration tests serves here too; the jobs start Ray themselves."""

from tests.integration.conftest import tiny_model

__all__ = ["tiny_model"]
