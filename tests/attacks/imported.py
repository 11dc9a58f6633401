"""What commands import, so that processes forked from here need not: nothing is run, and no thread is started."""

import os
import threading

os.environ["OMP_NUM_THREADS"] = "1"

import accelerate  # noqa: F401, E402
import matplotlib.pyplot  # noqa: F401, E402
import pycocotools.coco  # noqa: F401, E402
import soundfile  # noqa: F401, E402
import torch  # noqa: E402
import torchvision.datasets  # noqa: F401, E402
import webdataset  # noqa: F401, E402
from PIL import Image  # noqa: E402
from tqdm import tqdm  # noqa: E402

import mmlearn.training.evaluate  # noqa: F401, E402
import mmlearn.training.output  # noqa: F401, E402
import mmlearn.training.writing  # noqa: F401, E402
import mmlearn.visualization.sheet  # noqa: F401, E402
from mmlearn import cli  # noqa: F401, E402
from mmlearn.data import data_sets  # noqa: E402
from mmlearn.recipes.discovery import find_recipe, system_files  # noqa: E402

torch.set_num_threads(1)
Image.init()
tqdm.monitor_interval = 0  # which would be a thread
tqdm.set_lock(threading.RLock())  # not one that is shared by processes
data_sets()
for name in system_files():
    find_recipe(name)
