"""The manual, and what checks it. The package is not installed."""
