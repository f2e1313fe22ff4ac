"""``python -m hvproto``: the same as the command `hvproto`."""

from hvproto.cli.main import main

if __name__ == "__main__":
    main()
