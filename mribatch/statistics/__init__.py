"""Compute numbers from labels and scores: metrics, drift and significance tests. Arrays go in, numbers come out."""
