"""`python -m nearopt`: the command line, where the `nearopt` script is not on the path."""

import sys

from nearopt.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
