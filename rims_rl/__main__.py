"""`python -m rims_rl` is `rims-rl`."""

import sys

from rims_rl.cli import main

if __name__ == "__main__":
    sys.exit(main())
