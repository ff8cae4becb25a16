"""Write a model in int8 or bf16, as a model of its own, unless that costs accuracy.

On this machine:  python jobs/export.py --model M --precision int8 --calibration LABELLED --output models/int8

On a cluster:     ray job submit --working-dir . -- python jobs/export.py --model s3://bucket/models/m --precision int8 --calibration s3://bucket/labelled --output s3://bucket/models/int8
"""

import sys
from collections.abc import Sequence

from mribatch.cluster.supervisor import supervised
from mribatch.commands.cli import run_command


def main(argv: Sequence[str] | None = None) -> int:
    return run_command("export", str(__doc__), argv)


if __name__ == "__main__":
    sys.exit(supervised(main))
