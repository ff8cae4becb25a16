"""Merge small Parquet parts into larger ones and, if asked, delete old rows; the newest row of each scan is kept.

On this machine:  python jobs/compact.py --output predictions --keep-days 365

On a cluster:     ray job submit --working-dir . -- python jobs/compact.py --output s3://bucket/predictions
"""

import sys
from collections.abc import Sequence

from mribatch.cluster.supervisor import supervised
from mribatch.commands.cli import run_command


def main(argv: Sequence[str] | None = None) -> int:
    return run_command("compact", str(__doc__), argv)


if __name__ == "__main__":
    sys.exit(supervised(main))
