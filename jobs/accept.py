"""Measure a model on scans of a site and say whether it is fit for triage there, before anyone believes its rows.

On this machine:  python jobs/accept.py --model M --data LABELLED --output acceptance

On a cluster:     ray job submit --working-dir . -- python jobs/accept.py --model s3://bucket/models/m --data s3://bucket/labelled --output s3://bucket/acceptance
"""

import sys
from collections.abc import Sequence

from mribatch.cluster.supervisor import supervised
from mribatch.commands.cli import run_command


def main(argv: Sequence[str] | None = None) -> int:
    return run_command("accept", str(__doc__), argv)


if __name__ == "__main__":
    sys.exit(supervised(main))
