"""List, read and write bytes at URIs, on local disks and in S3."""
