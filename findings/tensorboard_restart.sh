#!/usr/bin/env bash
# Package: tensorboard==2.21.0 tensorboard-data-server==0.7.2
# Guessed: after an event SessionLog START of step 3, TensorBoard shows the steps up to 3 and what was written since.
# Seen: the Python loaders drop step 3, too, and one of them passes over the first START of a run. The default loader, the data
#   server, ignores the event: there a new value replaces those of its own curve from its step on, and other curves keep theirs.
# Andiron: every event file has a START of the first step that its process does, which is one more than the checkpoint's; said in
#   the README of andiron-training.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet tensorboard==2.21.0 tensorboard-data-server==0.7.2

cd "$place"
venv/bin/python - 2> messages <<'PYTHON' || { cat messages >&2; exit 1; }
import time

from tensorboard import context
from tensorboard.backend.event_processing import event_accumulator, plugin_event_accumulator
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.data import server_ingester
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tensorboard.util.grpc_util import ChannelCredsType

def start(step):
    return Event(step=step, session_log=SessionLog(status=SessionLog.START))

def scalar(tag, step):
    return Event(step=step, summary=Summary(value=[Summary.Value(tag=tag, simple_value=step)]))

def written(directory, first):
    """Steps 1 to 5 of two curves; then a restart at step 3 and step 4 of one of them."""
    writer = EventFileWriter(directory)
    for event in [*first, *(scalar(tag, step) for step in range(1, 6) for tag in "ab"), start(3), scalar("a", 4)]:
        writer.add_event(event)
    writer.close()

def by_accumulator(directory):
    events = event_accumulator.EventAccumulator(directory).Reload()
    return {tag: [event.step for event in events.Scalars(tag)] for tag in "ab"}

def by_plugins(directory):
    events = plugin_event_accumulator.EventAccumulator(directory).Reload()
    return {tag: [event.step for event in events.Tensors(tag)] for tag in "ab"}

def by_data_server(directory):
    ingester = server_ingester.SubprocessServerDataIngester(
        server_binary=server_ingester.get_server_binary(), logdir=directory, reload_interval=1,
        channel_creds_type=ChannelCredsType.LOCAL, samples_per_plugin={})
    ingester.start()
    time.sleep(3)
    read = ingester.data_provider.read_scalars(
        context.RequestContext(), experiment_id="", plugin_name="scalars", downsample=1000)
    return {tag: [datum.step for datum in read["."][tag]] for tag in "ab"}

written("with", [start(0)])
written("without", [])
seen = {f"{directory}, {read.__name__}": read(directory)
        for directory in ["with", "without"] for read in [by_accumulator, by_plugins, by_data_server]}
for name, curves in seen.items():
    print(name, curves)
dropped = {"a": [1, 2, 4], "b": [1, 2]}
assert seen["with, by_accumulator"] == seen["without, by_accumulator"] == seen["with, by_plugins"] == dropped
assert seen["without, by_plugins"] == {"a": [1, 2, 3, 4, 5, 4], "b": [1, 2, 3, 4, 5]}
assert seen["with, by_data_server"] == seen["without, by_data_server"] == {"a": [1, 2, 3, 4], "b": [1, 2, 3, 4, 5]}
PYTHON
