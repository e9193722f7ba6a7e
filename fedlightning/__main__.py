"""`python -m fedlightning` is `fedlightning-train` (without its completion by tab)."""

from fedlightning.cli.train import main

if __name__ == "__main__":
    main()
