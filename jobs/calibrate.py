"""Make a model's confidence a probability, and let it name the scans that a person should look at.

On this machine:  python jobs/calibrate.py --model brain-mri-v2 --data LABELLED --output models/calibrated

On a cluster:     ray job submit --working-dir . -- python jobs/calibrate.py --model s3://bucket/models/mine \
--data s3://bucket/labelled --output s3://bucket/models/calibrated
"""

import sys
from collections.abc import Sequence

from mribatch.cluster.supervisor import supervised
from mribatch.commands.cli import run_command


def main(argv: Sequence[str] | None = None) -> int:
    return run_command("calibrate", str(__doc__), argv)


if __name__ == "__main__":
    sys.exit(supervised(main))
