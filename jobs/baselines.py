"""Compare models on labelled scans, side by side: the paper's, strong and cheap ones on frozen features, and the deep ones.

On this machine:  python jobs/baselines.py --data LABELLED --classes notumor meningioma --output comparison

On a cluster:     ray job submit --working-dir . -- python jobs/baselines.py --data s3://bucket/labelled --output s3://bucket/comparison
"""

import sys
from collections.abc import Sequence

from mribatch.runs.command import run_command
from mribatch.runs.supervisor import supervised


def main(argv: Sequence[str] | None = None) -> int:
    return run_command("BaselinesConfig", "compare", str(__doc__), argv)


if __name__ == "__main__":
    sys.exit(supervised(main))
