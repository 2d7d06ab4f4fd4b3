"""Ours beside cleanlab's and plain rules, same inputs, one run: `python -m tests.benchmarks.correction.main`."""

import argparse
import shlex

from tests.benchmarks.correction import real, synthetic
from tests.benchmarks.correction.command import COMMAND
from tests.benchmarks.correction.settings import QUICK, SETTINGS


def main() -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one seed and a few settings")
    parser.add_argument(
        "--seeds", type=int, help="how many; without it 3 for the synthetic sets and 5 for the real one"
    )
    parser.add_argument("--only", choices=("synthetic", "real"))
    parser.add_argument("--setting", action="append", help="only settings with this in their name; may be repeated")
    parser.add_argument("--command", default=shlex.join(COMMAND), help="measured in place of this tree's command")
    options = parser.parse_args()
    command = shlex.split(options.command)
    if options.only != "real":
        settings = [setting for setting in SETTINGS if setting.name in QUICK or not options.quick]
        if options.setting:
            settings = [setting for setting in SETTINGS if any(part in setting.name for part in options.setting)]
        synthetic.run(settings, range(options.seeds or (1 if options.quick else 3)), command)
    if options.only != "synthetic":
        real.run(range(options.seeds or (1 if options.quick else 5)), command)


if __name__ == "__main__":
    main()
