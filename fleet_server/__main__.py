"""`python -m fleet_server --data DIR`."""

import sys

from fleet_server.process import main

if __name__ == "__main__":
    sys.exit(main())
