"""Where a worker process begins; `fedlightning.workers.remote.process` starts it."""

import sys

from fedlightning.workers.remote.server import main

if __name__ == "__main__":
    main(int(sys.argv[1]))
