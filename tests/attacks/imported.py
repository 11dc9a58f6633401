"""What commands import, so that processes forked from here need not: nothing is run, and no thread is started."""

import os
import threading

os.environ["OMP_NUM_THREADS"] = "1"

import accelerate  # noqa: F401
import matplotlib.pyplot  # noqa: F401
import pycocotools.coco  # noqa: F401
import soundfile  # noqa: F401
import torch
import torchvision.datasets  # noqa: F401
import webdataset  # noqa: F401
from PIL import Image
from tqdm import tqdm

import mmlearn.training.evaluate
import mmlearn.training.output
import mmlearn.training.writing
import mmlearn.visualization.sheet  # noqa: F401
from mmlearn import cli  # noqa: F401
from mmlearn.data import data_sets
from mmlearn.recipes.discovery import find_recipe, system_files

torch.set_num_threads(1)
Image.init()
tqdm.monitor_interval = 0  # which would be a thread
tqdm.set_lock(threading.RLock())  # not one that is shared by processes
data_sets()
for name in system_files():
    find_recipe(name)
