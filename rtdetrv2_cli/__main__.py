"""`python -m rtdetrv2_cli` is `rtdetrv2`."""

from rtdetrv2_cli.cli.main import main

if __name__ == "__main__":
    main()
