"""Bulk classification of brain-MRI scans on Ray: train, evaluate, score.

A research and triage tool, not a medical device.
"""
