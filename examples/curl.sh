#!/usr/bin/env bash
# Makes a video with nothing but curl: bash examples/curl.sh "a red circle moving right on a navy background" circle.mp4
set -euo pipefail
url=${WAN22_URL:-http://127.0.0.1:8000}
prompt=${1:?what to show} file=${2:?where to write the video}

call() { curl --silent --show-error --fail-with-body --header "Authorization: Bearer ${WAN22_KEY:-unused}" "$@"; }
# The value of a text in a JSON object, without any other program.
text() { grep -o "\"$1\":\"[^\"]*\"" | head -n 1 | cut -d '"' -f 4; }

answer=$(call --form-string "prompt=$prompt" "$url/api/v1/generation/submit") || { echo "$answer" >&2; exit 1; }
id=$(text task_id <<< "$answer")
while status=$(call "$url/api/v1/queue/$id" | text status); [[ $status == pending || $status == processing ]]; do
  sleep 1
done
[[ $status == completed ]] || { echo "the task ended as $status" >&2; exit 1; }
call --output "$file" "$url/api/v1/outputs/$id/download"
echo "$file"
