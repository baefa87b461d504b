"""Look for defects in a data set before sharding: python data_sharding/check_data.py --data DIR [DIR ...]"""

import argparse
import os
import sys
from pathlib import Path

from ufo_large.config import add_plugin_option, load_plugins, require_writable


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", nargs="+", required=True, metavar="DIR", help="folders, as for make_shards.py"
    )
    parser.add_argument(
        "--report", default="data_report", metavar="DIR", help="folder for report.json and report.html"
    )
    parser.add_argument(
        "--fix", metavar="OUT", help="write an index without the defects, for make_shards.py --data OUT"
    )
    parser.add_argument("--classes", nargs="*", default=[], metavar="TASK=N", help="as for make_shards.py")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processes")
    add_plugin_option(parser)
    args = parser.parse_args()
    from ufo_large.data.doctor import diagnose, write_fix, write_json
    from ufo_large.data.doctor_report import print_tables, write_html
    from ufo_large.data.sharding import parse_class_counts

    load_plugins(args.plugin)
    require_writable(args.report, "--report")
    if args.fix:
        require_writable(args.fix, "--fix")
    diagnosis = diagnose(args.data, parse_class_counts(args.classes), args.jobs)
    print_tables(diagnosis)
    report = Path(args.report)
    write_json(diagnosis, report / "report.json")
    write_html(diagnosis, report / "report.html")
    print(f"{report / 'report.html'}: samples as read, and the worst; {report / 'report.json'}: everything")
    if args.fix:
        done = write_fix(diagnosis, Path(args.fix))
        print("\n".join(done[:20] + ([f"and {len(done) - 20} more"] if len(done) > 20 else [])))
        print(
            f"{len(done)} changes, listed in {Path(args.fix) / 'changes.txt'}; no file of yours was touched"
        )
        return 0
    return 1 if diagnosis.errors else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ValueError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; nothing was written")
