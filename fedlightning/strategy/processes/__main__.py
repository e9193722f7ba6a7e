"""Where a process of a simulation begins; `fedlightning.strategy.processes.process` starts it."""

import sys

from fedlightning.strategy.processes.resident import main

if __name__ == "__main__":
    main(int(sys.argv[1]))
