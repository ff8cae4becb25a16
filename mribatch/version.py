"""The package's version, which also holds where its sources were uploaded to a cluster and not installed."""

__all__ = ["__version__"]

__version__ = "0.1.0"
