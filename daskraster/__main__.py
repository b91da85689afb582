"""``python -m daskraster``: the command, where its script is not on the path."""

from daskraster.cli import main

if __name__ == "__main__":
    main(prog_name="daskraster")
