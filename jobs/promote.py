"""Compare a model with the current one on labelled scans, and make it the current one unless it is worse.

On this machine:  python jobs/promote.py --models models --candidate brain-mri-v2 --data LABELLED --output promotion

On a cluster:     ray job submit --working-dir . -- python jobs/promote.py --models s3://bucket/models --candidate brain-mri-v2 --data s3://bucket/labelled --output s3://bucket/promotion
"""

import sys
from collections.abc import Sequence

from mribatch.cluster.supervisor import supervised
from mribatch.commands.cli import run_command


def main(argv: Sequence[str] | None = None) -> int:
    return run_command("promote", str(__doc__), argv)


if __name__ == "__main__":
    sys.exit(supervised(main))
