"""Score scans with a model: one Parquet row per scan. Run it again to score what is new or changed.

On this machine:  python jobs/score.py --model models/brain-mri-v2 --input SCANS --output predictions

On a cluster:     ray job submit --working-dir . -- python jobs/score.py --model s3://bucket/models/v1 --input s3://bucket/scans --output s3://bucket/predictions
"""

import sys
from collections.abc import Sequence

from mribatch.cluster.supervisor import supervised
from mribatch.commands.cli import run_command


def main(argv: Sequence[str] | None = None) -> int:
    return run_command("score", str(__doc__), argv)


if __name__ == "__main__":
    sys.exit(supervised(main))
