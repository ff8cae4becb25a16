"""Compare models on labelled scans: classical ones on pixels, as in the paper, or on frozen features, and deep networks.

On this machine:  python jobs/baselines.py --data LABELLED --classes notumor meningioma --output comparison

On a cluster:     ray job submit --working-dir . -- python jobs/baselines.py --data s3://bucket/labelled --output s3://bucket/comparison
"""

import sys
from collections.abc import Sequence

from mribatch.cluster.supervisor import supervised
from mribatch.commands.cli import run_command


def main(argv: Sequence[str] | None = None) -> int:
    return run_command("baselines", str(__doc__), argv)


if __name__ == "__main__":
    sys.exit(supervised(main))
