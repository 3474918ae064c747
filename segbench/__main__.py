"""`python -m segbench COMMAND`."""

import sys

from segbench.cli import main

if __name__ == "__main__":
    sys.exit(main())
