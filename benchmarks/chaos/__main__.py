"""(h) Faults: a study of 300 evaluations whose workers, nodes, servers and files fail at random, by seed.

    python -m benchmarks.chaos --seeds 20 --out DIR    # random faults; resumes where it was stopped
    python -m benchmarks.chaos --two-nodes             # a worker node is killed halfway, another joins
    python -m benchmarks.chaos --driver-kills 20       # the driver is killed at 20 moments of one study

Every study is run by the raydc command on a real Ray cluster and, except the last, with a real MLflow
server. Each is compared with the same study without faults. DIR keeps the studies' folders and results.
"""

from __future__ import annotations

import argparse
import signal
from pathlib import Path

from benchmarks.chaos.bed import POINTS
from benchmarks.chaos.studies import driver_kills, seeds, two_nodes

DEFAULT = Path("runs/chaos")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--seeds", type=int, default=20, help="number of studies, each with the faults of its seed"
    )
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--faults", type=int, default=6, help="number of faults per study")
    parser.add_argument(
        "--evaluations", type=int, default=300, help=f"number per study, a multiple of {POINTS}"
    )
    parser.add_argument("--steps", type=int, default=100, help="training steps per student")
    parser.add_argument(
        "--limit", type=float, default=900.0, help="seconds after which a study counts as hanging"
    )
    parser.add_argument("--out", type=Path, default=DEFAULT)
    parser.add_argument("--two-nodes", action="store_true")
    parser.add_argument("--driver-kills", type=int, metavar="KILLS")
    chosen = parser.parse_args()
    if chosen.evaluations % POINTS or chosen.evaluations < POINTS:
        parser.error(f"--evaluations is {chosen.evaluations}, but must be a multiple of {POINTS}")
    size = {"evaluations": chosen.evaluations, "steps": chosen.steps, "limit_seconds": chosen.limit}
    out = chosen.out.absolute()
    # End all started processes on any signal; a background shell would make this process ignore SIGINT.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    if chosen.two_nodes:
        kept = two_nodes(out, **size)
    elif chosen.driver_kills is not None:
        kept = driver_kills(out, chosen.driver_kills, seed=chosen.first_seed, **size)
    else:
        numbers = range(chosen.first_seed, chosen.first_seed + chosen.seeds)
        kept = seeds(out, numbers, faults=chosen.faults, **size)
    raise SystemExit(0 if kept else 1)


if __name__ == "__main__":
    main()
