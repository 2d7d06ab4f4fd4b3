"""qwen_vl_utils.fetch_video with decord, in .peers/qwen-video: reads a file name per line, answers with CPU seconds.

The first line has the bounds as JSON.
"""

import json
import os
import sys
import time

os.environ["FORCE_QWENVL_VIDEO_READER"] = "decord"

import torch
from qwen_vl_utils import fetch_video


def main() -> None:
    torch.set_num_threads(1)
    bounds = json.loads(sys.stdin.readline())
    for line in sys.stdin:
        began = time.process_time()
        frames, fps = fetch_video({"video": line.strip(), **bounds}, return_video_sample_fps=True)
        seconds = time.process_time() - began
        print(json.dumps({"cpu": seconds, "shape": list(frames.shape), "fps": fps}), flush=True)


if __name__ == "__main__":
    main()
