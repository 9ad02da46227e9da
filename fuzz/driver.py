"""Run a fuzz target: with atheris if it is installed, which is guided by coverage, else by mutation of seeds."""

from __future__ import annotations

import argparse
import gc
import importlib.util
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import FunctionType

SEEDS = Path(__file__).parent / "seeds"
CRASHES = Path(__file__).parent / "crashes"
MAX_BYTES = 4096
SLOW = 20
"""Seconds that an input may take, with atheris."""


def main(name: str, target: Callable[[bytes], None]) -> None:
    """Fuzz a target until the time is over, keep the first input that fails, and exit with a status that says so.

    Args:
        name: The target's, for its directories of seeds and crashes.
        target: Takes one input, and raises an error if something is wrong.
    """
    parser = argparse.ArgumentParser(description=f"Fuzz the {name} target.")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long (default: 60)")
    parser.add_argument(
        "--seed", type=int, default=1, help="of the random numbers (default: 1; 0 takes another each time)"
    )
    parser.add_argument("--corpus", type=Path, help="where to keep the inputs that reach new code, with atheris")
    options = parser.parse_args()
    crashes = CRASHES / name
    seeds = [path.read_bytes() for kept in (SEEDS / name, crashes) if kept.is_dir() for path in sorted(kept.iterdir())]
    if importlib.util.find_spec("atheris") is None:
        sys.exit(mutate(target, seeds or [b""], options.seconds, options.seed, crashes))
    with tempfile.TemporaryDirectory(prefix="fuzz-") as temporary:
        child = os.fork()
        if child == 0:
            explore(target, options.seconds, options.seed, options.corpus or Path(temporary), [SEEDS / name, crashes])
        status = os.waitpid(child, 0)[1]
    sys.exit(os.waitstatus_to_exitcode(status))


def explore(target: Callable[[bytes], None], seconds: float, seed: int, corpus: Path, kept: list[Path]) -> None:
    """Run inputs that coverage guides. libFuzzer ends the process, with a status other than 0 if one failed.

    Args:
        target: What takes them.
        seconds: How long.
        seed: The seed of the random numbers, or 0 for another one each time.
        corpus: Where inputs that reach new code are written. Those that are there are used, too.
        kept: Directories with inputs to start from. The failing input is written to the last one.
    """
    import atheris

    for directory in (corpus, kept[-1]):
        directory.mkdir(parents=True, exist_ok=True)
    limits = [f"-max_total_time={int(seconds)}", f"-max_len={MAX_BYTES}", f"-timeout={SLOW}"]
    arguments = [*limits, f"-seed={seed}", "-print_final_stats=1"]
    directories = [str(path) for path in (corpus, *kept) if path.is_dir()]
    # The libraries' own code would only cost time.
    for one in gc.get_objects():
        if isinstance(one, FunctionType) and (one.__module__ or "").startswith("papr_hook"):
            atheris.instrument_func(one)
    atheris.Setup([sys.argv[0], *arguments, f"-artifact_prefix={kept[-1]}/", *directories], target)
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
    numbers = random.Random(seed or None)
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
