"""`python -m tests.faults --help`."""

import sys

from tests.faults.harness import main

if __name__ == "__main__":
    sys.exit(main())
