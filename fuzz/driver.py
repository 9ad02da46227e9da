"""Run a fuzz target: with atheris if it is installed, which is guided by coverage, else by mutation of seeds."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

SEEDS = Path(__file__).parent / "seeds"
CRASHES = Path(__file__).parent / "crashes"
MAX_BYTES = 4096


def main(name: str, target: Callable[[bytes], None]) -> None:
    """Fuzz a target until the time is over, and keep the first input that fails.

    Args:
        name: The target's, for its directories of seeds and crashes.
        target: Takes one input, and raises an error if something is wrong.
    """
    parser = argparse.ArgumentParser(description=f"Fuzz the {name} target.")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long (default: 60)")
    parser.add_argument("--seed", type=int, default=0, help="of the random numbers, without atheris")
    options = parser.parse_args()
    crashes = CRASHES / name
    seeds = [path.read_bytes() for kept in (SEEDS / name, crashes) if kept.is_dir() for path in sorted(kept.iterdir())]
    try:
        import atheris
    except ImportError:
        sys.exit(mutate(target, seeds or [b""], options.seconds, options.seed, crashes))
    crashes.mkdir(parents=True, exist_ok=True)
    arguments = [sys.argv[0], f"-max_total_time={int(options.seconds)}", f"-artifact_prefix={crashes}/"]
    atheris.instrument_all()
    # libFuzzer writes what it finds into the first directory.
    with tempfile.TemporaryDirectory(prefix="fuzz-") as found:
        atheris.Setup([*arguments, found, *(str(kept) for kept in (SEEDS / name,) if kept.is_dir())], target)
        atheris.Fuzz()


def mutate(target: Callable[[bytes], None], seeds: list[bytes], seconds: float, seed: int, crashes: Path) -> int:
    """Run mutations of the seeds, and return 1 if one failed.

    Args:
        target: What takes them.
        seeds: Inputs to start from.
        seconds: How long.
        seed: The seed of the random numbers.
        crashes: Where the failing input is written.
    """
    numbers = random.Random(seed)
    end = time.monotonic() + seconds
    count = 0
    while time.monotonic() < end:
        data = change(numbers.choice(seeds), numbers)
        count += 1
        try:
            target(data)
        except Exception as error:
            crashes.mkdir(parents=True, exist_ok=True)
            file = crashes / f"{abs(hash(data)):016x}"
            file.write_bytes(data)
            print(f"{file}: {type(error).__name__}: {error}", file=sys.stderr)
            return 1
    print(f"{count} inputs, none failed")
    return 0


def change(data: bytes, numbers: random.Random) -> bytes:
    """Return a random mutation of an input."""
    mutated = bytearray(data or numbers.randbytes(200))
    for _ in range(numbers.randint(1, 12)):
        at = numbers.randrange(len(mutated) + 1)
        choice = numbers.randrange(4)
        if choice == 0:
            mutated[at:at] = numbers.randbytes(numbers.randint(1, 40))
        elif choice == 1:
            del mutated[at : at + numbers.randint(1, 20)]
        elif choice == 2 and at < len(mutated):
            mutated[at] = numbers.randrange(256)
        else:
            start = numbers.randrange(len(mutated) + 1)
            mutated[at:at] = mutated[start : start + 40]
    return bytes(mutated[:MAX_BYTES])
