"""The node without ROS 2: the same messages and topics over DDS, by the `cyclonedds` wheel.

ROS 2 prefixes topic names with `rt/`, names message types `package::msg::dds_::Name_`, and serialises messages as CDR. ROS 2
nodes in the same domain should therefore exchange messages with this one.
"""

import time
from dataclasses import dataclass
from typing import Any

from cyclonedds.domain import DomainParticipant  # pyright: ignore[reportMissingImports]
from cyclonedds.idl import IdlStruct  # pyright: ignore[reportMissingImports]
from cyclonedds.idl.types import float64, int32, sequence, uint32  # pyright: ignore[reportMissingImports]
from cyclonedds.pub import DataWriter  # pyright: ignore[reportMissingImports]
from cyclonedds.sub import DataReader  # pyright: ignore[reportMissingImports]
from cyclonedds.topic import Topic  # pyright: ignore[reportMissingImports]


@dataclass
class Time(IdlStruct, typename="builtin_interfaces::msg::dds_::Time_"):
    """builtin_interfaces/msg/Time."""

    sec: int32
    nanosec: uint32


@dataclass
class Header(IdlStruct, typename="std_msgs::msg::dds_::Header_"):
    """std_msgs/msg/Header."""

    stamp: Time
    frame_id: str


@dataclass
class JointState(IdlStruct, typename="sensor_msgs::msg::dds_::JointState_"):
    """sensor_msgs/msg/JointState."""

    header: Header
    name: sequence[str]
    position: sequence[float64]
    velocity: sequence[float64]
    effort: sequence[float64]


@dataclass
class MultiArrayDimension(IdlStruct, typename="std_msgs::msg::dds_::MultiArrayDimension_"):
    """std_msgs/msg/MultiArrayDimension."""

    label: str
    size: uint32
    stride: uint32


@dataclass
class MultiArrayLayout(IdlStruct, typename="std_msgs::msg::dds_::MultiArrayLayout_"):
    """std_msgs/msg/MultiArrayLayout."""

    dim: sequence[MultiArrayDimension]
    data_offset: uint32


@dataclass
class Float64MultiArray(IdlStruct, typename="std_msgs::msg::dds_::Float64MultiArray_"):
    """std_msgs/msg/Float64MultiArray."""

    layout: MultiArrayLayout
    data: sequence[float64]


class Exchange:
    """A pilot's two topics in a DDS domain; the clock is the system clock, as in ROS 2.

    Args:
        pilot: A `craik_ros.pilot.Pilot`.
        domain: `ROS_DOMAIN_ID`.
    """

    def __init__(self, pilot: Any, domain: int = 0):
        self._pilot, participant = pilot, DomainParticipant(domain)
        self._heard = DataReader(participant, Topic(participant, "rt/joint_states", JointState))
        self._commands = DataWriter(participant, Topic(participant, "rt/commands", Float64MultiArray))

    def tick(self) -> None:
        """Reads the newest joint state and sends a command."""
        for message in self._heard.take(16):
            if isinstance(message, JointState):  # skips notifications of closed writers
                stamp = message.header.stamp.sec + 1e-9 * message.header.stamp.nanosec
                self._pilot.hear(message.name, message.position, message.velocity, stamp)
        self._commands.write(Float64MultiArray(MultiArrayLayout([], 0), self._pilot.tick()))

    def run(self, seconds: float) -> None:
        """Runs ticks on the wall clock."""
        begun, period = time.monotonic(), self._pilot.loop.period
        for tick in range(round(seconds / period)):
            time.sleep(max(0.0, begun + tick * period - time.monotonic()))
            self.tick()
