"""Say which scans there are and how they are labelled: listings, manifests and folders of classes."""
