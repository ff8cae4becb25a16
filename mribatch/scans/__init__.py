"""Scan bytes into checked RGB pixels. Pure functions: no Ray, no TensorFlow, no I/O."""
