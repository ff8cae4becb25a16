"""The tiny model and the scans of the integration tests serve here too; the jobs start Ray themselves."""

from tests.integration.conftest import scan_folder, tiny_model

__all__ = ["scan_folder", "tiny_model"]
