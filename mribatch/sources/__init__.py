"""Find the scans and their labels: listings, manifests and folders of classes."""
