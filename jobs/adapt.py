"""Estimate a model's batch-normalization statistics anew on unlabelled scans of a site, as a model of its own.

On this machine:  python jobs/adapt.py --model M --input SITE_SCANS --output models/here

On a cluster:     ray job submit --working-dir . -- python jobs/adapt.py --model s3://bucket/models/m --input s3://bucket/scans --output s3://bucket/models/here
"""

import sys
from collections.abc import Sequence

from mribatch.cluster.supervisor import supervised
from mribatch.commands.cli import run_command


def main(argv: Sequence[str] | None = None) -> int:
    return run_command("adapt", str(__doc__), argv)


if __name__ == "__main__":
    sys.exit(supervised(main))
