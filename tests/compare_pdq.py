#!/usr/bin/env python3
"""Asks three programs for the same PDQ values, and compares every answer and the rates.

    python3 tests/compare_pdq.py [--values 1000000] [--queries 20000] [--hashpact PATH]

It makes a virtual environment in a temporary folder (or in --env, to use it again), installs
`threatexchange` and `faiss-cpu` there from PyPI, makes values and queries from a number, and
runs one after the other, on the same values, the same queries and as many threads:

  * threatexchange's default PDQ index, one query at a time, as its users call it;
  * faiss's flat binary index, in batches, and its multi-hash binary index (16 x 16 bits with
    one flip, which misses nothing within 31), in batches;
  * `hashpact bench pdq`, one at a time and in batches.

Slow ones are asked fewer queries, the first of the same list; their answers are compared with
ours for those. It prints one JSON object. A difference in any answer ends it with exit code 1.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import venv

PACKAGES = ["threatexchange==1.2.17", "faiss-cpu==1.15.1"]
DISTANCE = 31


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--values", type=int, default=1_000_000, help="values in the index [1000000]")
    parser.add_argument("--queries", type=int, default=20_000, help="queries for the fast ones [20000]")
    parser.add_argument("--slow-queries", type=int, default=2_000, help="queries for faiss and threatexchange [2000]")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of each [one per core]")
    parser.add_argument("--clustered", action="store_true", help="families of 64 near-duplicates, not random values")
    parser.add_argument("--hashpact", default="target/release/hashpact", help="the program [target/release/hashpact]")
    parser.add_argument("--env", help="folder of the virtual environment, kept [a temporary one]")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    args = arguments()
    if args.inside:
        return compare(args, pathlib.Path(args.inside))
    with tempfile.TemporaryDirectory(prefix="hashpact-compare-") as folder:
        environment = pathlib.Path(args.env or os.path.join(folder, "env"))
        python = environment / "bin" / "python"
        if not python.exists():
            say("installing " + ", ".join(PACKAGES))
            venv.create(environment, with_pip=True)
            subprocess.run([python, "-m", "pip", "install", "-q", *PACKAGES], check=True, stdout=sys.stderr)
        return subprocess.run([python, __file__, *sys.argv[1:], "--inside", folder]).returncode


def compare(args, folder):
    import numpy

    values, queries = make(numpy, args)
    slow = queries[: args.slow_queries]
    result = {"values": args.values, "data": "clustered" if args.clustered else "random", "threads": args.threads,
              "distance": DISTANCE, "packages": PACKAGES}
    ours, answers = hashpact(args, folder, values, queries)
    result["hashpact"] = ours
    expected = answers[: len(slow)]
    runs = {
        "threatexchange_one_by_one": lambda: threatexchange(values, slow),
        "faiss_flat_batch": lambda: faiss_run(args, "flat", values, slow),
        "faiss_multi_hash_batch": lambda: faiss_run(args, "multi", values, slow),
    }
    for name, run in runs.items():
        say(name)
        rate, found = run()
        result[name] = {"per_s": round(rate), "queries": len(slow)}
        wrong = sum(a != b for a, b in zip(found, expected))
        result[name]["answers_that_differ"] = wrong
    best = max(result["faiss_flat_batch"]["per_s"], result["faiss_multi_hash_batch"]["per_s"])
    result["ratios"] = {
        "one_by_one_to_threatexchange": round(ours["one_thread_per_s"] / result["threatexchange_one_by_one"]["per_s"], 1),
        "one_by_one_all_threads_to_threatexchange": round(
            ours["all_threads_per_s"] / result["threatexchange_one_by_one"]["per_s"], 1),
        "batch_to_best_faiss_batch": round(ours["batch_all_threads_per_s"] / best, 1),
    }
    print(json.dumps(result))
    differ = [name for name in runs if result[name]["answers_that_differ"]]
    for name in differ:
        say(f"{name}: {result[name]['answers_that_differ']} of {len(slow)} answers differ from ours")
    return 1 if differ else 0


def make(numpy, args):
    """Distinct values, and queries of which every other one is a value with up to 31 bits flipped."""
    chance = numpy.random.default_rng(1)
    if args.clustered:
        heads = chance.integers(0, 256, size=(args.values // 64 + 1, 32), dtype=numpy.uint8)
        values = numpy.repeat(heads, 64, axis=0)[: args.values].copy()
        flip(numpy, chance, values, 24)
    else:
        values = chance.integers(0, 256, size=(args.values, 32), dtype=numpy.uint8)
    values = numpy.unique(values, axis=0)
    queries = chance.integers(0, 256, size=(args.queries, 32), dtype=numpy.uint8)
    known = values[chance.integers(0, len(values), size=(args.queries + 1) // 2)].copy()
    flip(numpy, chance, known, DISTANCE)
    queries[::2] = known
    return values, queries


def flip(numpy, chance, values, most):
    """Flips up to so many bits of each value."""
    counts = chance.integers(0, most + 1, size=len(values))
    for turn in range(most):
        rows = numpy.nonzero(counts > turn)[0]
        bits = chance.integers(0, 256, size=len(rows))
        values[rows, bits // 8] ^= (1 << (bits % 8)).astype(numpy.uint8)


def hashpact(args, folder, values, queries):
    say("hashpact")
    write(folder / "values", values)
    write(folder / "queries", queries)
    command = [args.hashpact, "bench", "pdq", "--json", "--threads", str(args.threads), "--distance", str(DISTANCE),
               "--values", folder / "values", "--ask", folder / "queries", "--answers", folder / "answers"]
    ran = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    measured = json.loads(ran.stdout)["data"][0]
    answers = [set() for _ in queries]
    with open(folder / "answers", encoding="ascii") as lines:
        for line in lines:
            number, distance, value = line.split()
            answers[int(number)].add((int(distance), value))
    figures = {
        "linear_per_s": measured["linear_per_s"],
        "one_thread_per_s": measured["one_thread"]["per_s"],
        "one_thread_latency_ms": measured["one_thread"]["latency_ms"],
        "all_threads_per_s": measured["all_threads"]["per_s"],
        "batch_per_s": measured["batch_per_s"],
        "batch_all_threads_per_s": measured["batch_all_threads_per_s"],
        "bytes_per_value": measured["bytes_per_value"],
        "queries": len(queries),
    }
    return figures, answers


def threatexchange(values, queries):
    from threatexchange.signal_type.pdq.signal import PdqSignal

    hexes = [value.tobytes().hex() for value in values]
    index = PdqSignal.get_index_cls().build((text, text) for text in hexes)
    asked = [query.tobytes().hex() for query in queries]
    began = time.perf_counter()
    answered = [index.query(query) for query in asked]
    rate = len(asked) / (time.perf_counter() - began)
    return rate, [{(match.similarity_info.distance, match.metadata) for match in matches} for matches in answered]


def faiss_run(args, kind, values, queries):
    import faiss

    faiss.omp_set_num_threads(args.threads)
    if kind == "flat":
        index = faiss.IndexBinaryFlat(256)
    else:
        index = faiss.IndexBinaryMultiHash(256, 16, 16)
        index.nflip = 1
    index.add(values)
    began = time.perf_counter()
    # faiss answers what is nearer than the radius.
    limits, distances, labels = index.range_search(queries, DISTANCE + 1)
    rate = len(queries) / (time.perf_counter() - began)
    found = []
    for number in range(len(queries)):
        span = range(limits[number], limits[number + 1])
        found.append({(int(distances[at]), values[labels[at]].tobytes().hex()) for at in span})
    return rate, found


def write(path, values):
    with open(path, "w", encoding="ascii") as file:
        for value in values:
            file.write(value.tobytes().hex() + "\n")


def say(what):
    print(f"compare: {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
