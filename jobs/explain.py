"""Show where in a scan the score of its predicted class comes from, as overlays on one page.

On this machine:  python jobs/explain.py --model brain-mri-v2 --input SCANS --output explanations

On a cluster:     ray job submit --working-dir . -- python jobs/explain.py --model s3://bucket/models --input s3://bucket/scans --output s3://bucket/explanations
"""

import sys
from collections.abc import Sequence

from mribatch.cluster.supervisor import supervised
from mribatch.commands.cli import run_command


def main(argv: Sequence[str] | None = None) -> int:
    return run_command("explain", str(__doc__), argv)


if __name__ == "__main__":
    sys.exit(supervised(main))
