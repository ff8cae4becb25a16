"""Print what a million scans cost by the processor time that `side_by_side.py` measured, at a price that you give.

In the root of the repository:  python benchmarks/cost.py --price-per-hour 1.00 --cores 16

The processor time of a scan is what more scans take more, divided by their number, so that the start is left out. Core-hours
are those of the measured processor; another one takes more or fewer. The price of storage and transfer is not included.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from contenders import HELP, NOTHING, RERUN

from mribatch.errors import ConfigError, MribatchError

MILLION = 1_000_000


@dataclass(frozen=True, kw_only=True)
class CostConfig:
    """The price of a machine, and how fast it scores."""

    price_per_hour: float
    """What an hour of the machine costs, in any currency."""

    cores: int = 1
    """Cores of the machine; its price is divided by them."""

    scans_per_s: float | None = None
    """The rate of the machine, measured there with `make bench`, on a GPU for example. Default: the measured processor
    time on all its cores."""

    measured: str = "benchmarks/side_by_side.json"
    """The results of side_by_side.py, with two numbers of scans or more."""


def table(config: CostConfig) -> str:
    """Return the hours and the price of a million scans as a Markdown table. Raises ConfigError without measurements."""
    lines = ["| | hours of the machine | price |", "|---|---|---|"]
    if config.scans_per_s is not None:
        return "\n".join([*lines, _row("mribatch", MILLION / config.scans_per_s / 3600, config.price_per_hour)])
    if not Path(config.measured).exists():
        raise ConfigError(
            f"no measurements at {config.measured}: run side_by_side.py --scans 17 256, or pass --scans-per-s"
        )
    result = json.loads(Path(config.measured).read_text())
    if len(result["sizes"]) < 2:
        raise ConfigError(
            f"{config.measured} has one number of scans, expected two: run side_by_side.py --scans 17 256"
        )
    for name, cpu_s in cpu_s_per_scan(result):
        lines.append(_row(name, MILLION * cpu_s / config.cores / 3600, config.price_per_hour))
    return "\n".join(lines)


def cpu_s_per_scan(result: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield the CPU-seconds that each command takes for one more scan."""
    first, last = result["sizes"][0], result["sizes"][-1]
    for name, times in last["median"].items():
        if name in first["median"] and name not in (NOTHING.name, RERUN, HELP):
            more = times["cpu_s"] - first["median"][name]["cpu_s"]
            yield name, more / (last["count"] - first["count"])


def _row(name: str, hours: float, price_per_hour: float) -> str:
    return f"| {name} | {hours:.1f} | {hours * price_per_hour:.2f} |"


def main() -> int:
    try:
        print(table(tyro.cli(CostConfig, description=__doc__)))
    except MribatchError as err:
        print(f"error: {err}", file=sys.stderr)
        return err.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
