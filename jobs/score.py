"""Score scans with a model: one Parquet row per scan; run it again to score what is new.

On this machine:  python jobs/score.py --model models/brain-mri-v1 --input SCANS --output predictions

On a cluster:     ray job submit --working-dir . -- python jobs/score.py --model s3://bucket/models/v1 --input s3://bucket/scans --output s3://bucket/predictions
"""

import sys
from collections.abc import Sequence

from mribatch.runs.command import run_command
from mribatch.runs.supervisor import supervised


def main(argv: Sequence[str] | None = None) -> int:
    return run_command("ScoreConfig", "score", str(__doc__), argv)


if __name__ == "__main__":
    sys.exit(supervised(main))
