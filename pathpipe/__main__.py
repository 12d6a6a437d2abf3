"""`python -m pathpipe`."""

from pathpipe.cli.app import main

if __name__ == "__main__":
    main()
