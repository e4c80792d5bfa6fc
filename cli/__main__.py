"""`python -m dlkit_cli` is the program `dlkit`."""

from __future__ import annotations

from .main import main

if __name__ == "__main__":
    main()
