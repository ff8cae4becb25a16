"""Frozen dataclasses with the settings of each command. Types and ranges are checked once, when one is made."""
