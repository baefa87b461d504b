"""Read shards again and hold every byte against its checksum: python data_sharding/verify_shards.py SHARDS"""

import argparse
import os
import sys


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shards", help="a folder that make_shards.py wrote")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processes")
    args = parser.parse_args()
    from ufo_large.data.shard_index import shard_entries
    from ufo_large.data.verify import verify_shards

    dataset = verify_shards(args.shards, args.jobs)
    entries = shard_entries(dataset)
    size = sum(entry.bytes for entry in entries) / 1e6
    samples = sum(entry.count for entry in entries)
    print(f"{args.shards}: {len(entries)} shards, {samples} samples, {size:.1f} MB: all good")


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"error: {error}")
