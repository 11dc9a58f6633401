"""``python -m mmlearn`` is ``mmlearn``; ``torchrun -m mmlearn train …`` needs it."""

from mmlearn.cli import main

main()
