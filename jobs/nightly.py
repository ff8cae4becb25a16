"""Score new and changed scans, and all scans after a change of model; stop at the deadline; write a report.

On this machine:  python jobs/nightly.py --model models --input SCANS --output predictions --deadline 06:00 --timezone Europe/Paris

On a cluster:     ray job submit --working-dir . -- python jobs/nightly.py --model s3://bucket/models --input s3://bucket/scans --output s3://bucket/predictions --deadline 06:00
"""

import sys
from collections.abc import Sequence

from mribatch.cluster.supervisor import supervised
from mribatch.commands.cli import run_command


def main(argv: Sequence[str] | None = None) -> int:
    return run_command("nightly", str(__doc__), argv)


if __name__ == "__main__":
    sys.exit(supervised(main))
