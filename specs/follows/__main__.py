"""Checks the records in the directories that the command line names: ``python -m specs.follows DIRECTORY...``."""

import argparse
import sys
from pathlib import Path

from specs.follows.check import check


def main() -> int:
    """Check the directories that the command line names; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m specs.follows", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("directories", type=Path, nargs="+", help="records of runs, each checked for itself")
    reports = [(directory, check(directory)) for directory in parser.parse_args().directories]
    for directory, report in reports:
        print(f"{directory}:\n{report}")
    steps = sum(report.steps for _, report in reports)
    changes = sum(report.changes for _, report in reports)
    print(f"follows: {steps:,} steps, {changes:,} delivered changes in {len(reports)} runs")
    return int(not all(report.is_accepted for _, report in reports))


if __name__ == "__main__":
    sys.exit(main())
