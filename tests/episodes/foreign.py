"""Logs as other people's robots write them: MCAP files with ROS 2 messages, made with rosbags and the mcap package."""

import numpy as np
from mcap.writer import Writer
from rosbags.typesys import Stores, get_typestore

ROS2 = get_typestore(Stores.ROS2_HUMBLE)
START = 1_700_000_000 * 10**9


def joints(t, names, position, velocity=()):
    """A sensor_msgs/JointState."""
    types = ROS2.types
    header = types["std_msgs/msg/Header"](types["builtin_interfaces/msg/Time"](t // 10**9, t % 10**9), "")
    arrays = [np.asarray(x, float) for x in (position, velocity, ())]
    return "sensor_msgs/msg/JointState", types["sensor_msgs/msg/JointState"](header, list(names), *arrays)


def number(value):
    """A std_msgs/Float64."""
    return "std_msgs/msg/Float64", ROS2.types["std_msgs/msg/Float64"](float(value))


def text(value):
    """A std_msgs/String."""
    return "std_msgs/msg/String", ROS2.types["std_msgs/msg/String"](value)


def write_log(path, messages, metadata=None):
    """Write (t_ns, topic, message) rows, in order, as a ROS 2 MCAP file; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as f:
        writer = Writer(f, chunk_size=4096)
        writer.start("ros2")
        schemas, channels = {}, {}
        for t, topic, (kind, message) in messages:
            if kind not in schemas:
                definition, _ = ROS2.generate_msgdef(kind, ros_version=2)
                schemas[kind] = writer.register_schema(kind, "ros2msg", definition.encode())
            if topic not in channels:
                channels[topic] = writer.register_channel(topic, "cdr", schemas[kind])
            writer.add_message(channels[topic], t, bytes(ROS2.serialize_cdr(message, kind)), t)
        if metadata:
            writer.add_metadata("about", metadata)
        writer.finish()
    return path


def arm_log(path, n=50, names=("roll", "yaw", "shoulder", "elbow", "pitch"), seed=0, **metadata):
    """Five joints whose order is not the Flyarm's, commands, and a temperature."""
    q = np.random.default_rng(seed).uniform(-1, 1, (n, len(names)))

    def rows():
        for i in range(n):
            t = START + i * 40_000_000
            yield t, "/joint_states", joints(t, names, q[i], q[i] / 2)
            yield t, "/joint_commands", joints(t, names, q[i] + 0.1)
            yield t, "/motor/temperature", number(40 + i / 10)

    write_log(path, rows(), metadata or None)
    return q
