"""python -m likely."""

from likely.cli import main

main()
