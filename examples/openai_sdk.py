"""Makes a video with the package `openai`: python examples/openai_sdk.py "a red circle moving right" circle.mp4"""

import os
import sys

import openai

prompt, file = sys.argv[1:]
client = openai.OpenAI(
    base_url=os.environ.get("WAN22_URL", "http://127.0.0.1:8000") + "/v1",
    api_key=os.environ.get("WAN22_KEY", "unused"),
)
# `model` and everything else is optional: the server takes the best model that it has.
video = client.videos.create_and_poll(prompt=prompt, seconds="1")  # type: ignore[arg-type]
if video.status != "completed":
    sys.exit(f"the video failed: {video.error and video.error.message}")
client.videos.download_content(video.id).write_to_file(file)
print(file)
