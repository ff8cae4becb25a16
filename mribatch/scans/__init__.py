"""Turn the bytes of a file into frames of checked pixels. Pure functions, apart from `sandbox`, which runs them in a process of its own."""
