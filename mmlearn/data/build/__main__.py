"""``python -m mmlearn.data.build NAME`` makes a packaged archive again."""

from mmlearn.data.build.archives import main

main()
