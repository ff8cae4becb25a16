"""Find copies, leaks between splits, wrong labels and shortcuts in labelled scans, before anything learns from them.

On this machine:  python jobs/audit.py --data LABELLED --output audit

On a cluster:     ray job submit --working-dir . -- python jobs/audit.py --data s3://bucket/labelled --output s3://bucket/audit
"""

import sys
from collections.abc import Sequence

from mribatch.cluster.supervisor import supervised
from mribatch.commands.cli import run_command


def main(argv: Sequence[str] | None = None) -> int:
    return run_command("audit", str(__doc__), argv)


if __name__ == "__main__":
    sys.exit(supervised(main))
