"""Runs `tests.performance.bench`. Worker processes import this file anew, so it imports nothing else before."""

import sys

if __name__ == "__main__":
    from tests.performance.bench import main

    sys.exit(main(sys.argv[1:]))
