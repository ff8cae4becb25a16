"""Score labelled scans with a model and write metrics, figures and a report.

On this machine:  python jobs/evaluate.py --model models/brain-mri-v2 --data LABELLED --output evaluation

On a cluster:     ray job submit --working-dir . -- python jobs/evaluate.py --model s3://bucket/models/v1 --data s3://bucket/labelled --output s3://bucket/evaluation
"""

import sys
from collections.abc import Sequence

from mribatch.cluster.supervisor import supervised
from mribatch.commands.cli import run_command


def main(argv: Sequence[str] | None = None) -> int:
    return run_command("evaluate", str(__doc__), argv)


if __name__ == "__main__":
    sys.exit(supervised(main))
