"""Score labelled scans with a model and write metrics, figures and a report.

On this machine:  python jobs/evaluate.py --model models/brain-mri-v1 --data LABELLED --output evaluation

On a cluster:     ray job submit --working-dir . -- python jobs/evaluate.py --model s3://bucket/models/v1 --data s3://bucket/labelled --output s3://bucket/evaluation
"""

import sys
from collections.abc import Sequence

from mribatch.runs.command import run_command
from mribatch.runs.supervisor import supervised


def main(argv: Sequence[str] | None = None) -> int:
    return run_command("EvaluateConfig", "evaluate", str(__doc__), argv)


if __name__ == "__main__":
    sys.exit(supervised(main))
