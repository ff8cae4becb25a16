"""One file per command: the composition of the rooms below, readable on one screen."""

import mribatch.cluster as _ray_settings  # noqa: F401  (sets what Ray reads when it is imported)
