"""Compute numbers from labels and scores: metrics, drift and significance tests. Functions take arrays and return numbers."""
