"""python -m likely."""

from likely.surfaces.cli import main

main()
