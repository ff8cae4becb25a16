"""Fine-tune a classifier on labelled scans and write a model directory.

On this machine:  python jobs/train.py --data DATA --output models/mine

On a cluster:     ray job submit --working-dir . -- python jobs/train.py --data s3://bucket/scans --output s3://bucket/models/mine
"""

import sys
from collections.abc import Sequence

from mribatch.cluster.supervisor import supervised
from mribatch.commands.cli import run_command


def main(argv: Sequence[str] | None = None) -> int:
    return run_command("train", str(__doc__), argv)


if __name__ == "__main__":
    sys.exit(supervised(main))
