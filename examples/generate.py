"""Makes a video with Python and nothing else: python examples/generate.py "a red circle moving right" circle.mp4"""

import json
import os
import sys
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

URL = os.environ.get("WAN22_URL", "http://127.0.0.1:8000")
HEADERS = {"Authorization": f"Bearer {os.environ.get('WAN22_KEY', 'unused')}", "Content-Type": "application/json"}


def call(method: str, path: str, body: object = None) -> bytes:
    """Return the answer; a refusal is printed in the words of the server."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(URL + path, data, HEADERS, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read()
    except urllib.error.HTTPError as refused:
        error = json.load(refused)
        sys.exit(f"{error['message']} {' '.join(error['suggestions'])}")


prompt, file = sys.argv[1:]
# With a key of its own a request can be sent again after a lost answer, and still makes one video.
asked = {"model_type": "auto", "prompt": prompt, "client_request_id": str(uuid.uuid4())}
task = json.loads(call("POST", "/api/v1/generation/submit", asked))
print(task["message"], *task["adjustments"], sep="\n")
task_id = task["task_id"]
while (task := json.loads(call("GET", f"/api/v1/queue/{task_id}")))["status"] in ("pending", "processing"):
    print(f"{task['progress']} % {task.get('message', '')}")
    time.sleep(1)
if task["status"] != "completed":
    sys.exit(f"the task ended as {task['status']}: {task.get('error_message', '')}")
Path(file).write_bytes(call("GET", f"/api/v1/outputs/{task_id}/download"))
print(file)
