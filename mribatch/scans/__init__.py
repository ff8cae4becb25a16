"""Turn the bytes of a file into frames of checked pixels. Pure, except for `sandbox`, which starts a process."""
