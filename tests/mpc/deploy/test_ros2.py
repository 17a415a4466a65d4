"""The package for ROS 2: what its node does without ROS, and its topics on the wire between two processes."""

import importlib
import json
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.faults import PERIOD, cart
from mpc.deploy.realtime import RealTime
from mpc.deploy.workers import Inline

PACKAGE = Path(__file__).parents[3] / "examples" / "ros2" / "craik_ros"
READINGS = ["position slider", "velocity slider"]
ROBOT = """
import json, sys, time
from craik_ros import wire
from cyclonedds.domain import DomainParticipant
participant = DomainParticipant(int(sys.argv[1]))
states = wire.DataWriter(participant, wire.Topic(participant, "rt/joint_states", wire.JointState))
commands = wire.DataReader(participant, wire.Topic(participant, "rt/commands", wire.Float64MultiArray))
position, velocity, heard, end = 1.0, 0.0, [], time.monotonic() + 60
while len(heard) < 25 and time.monotonic() < end:
    now = time.time()
    stamp = wire.Time(int(now), int(1e9 * (now % 1)))
    states.write(wire.JointState(wire.Header(stamp, ""), ["wheel", "slider"], [9.0, position], [9.0, velocity], []))
    heard += [list(m.data) for m in commands.take(16) if isinstance(m, wire.Float64MultiArray)]
    if heard:
        velocity += 0.005 * heard[-1][0]
        position += 0.005 * velocity
    time.sleep(0.005)
print(json.dumps([heard, position]))
"""


@pytest.fixture(scope="module")
def artefact():
    return cart()


@pytest.fixture(autouse=True)
def package(monkeypatch):
    monkeypatch.syspath_prepend(str(PACKAGE))


class Clock:
    """A clock that shows what it is told."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_commands_are_those_of_the_loop_for_what_is_read_off_the_joints(artefact):
    from craik_ros.pilot import READINGS as KNOWN  # pyright: ignore[reportMissingImports]
    from craik_ros.pilot import Pilot  # pyright: ignore[reportMissingImports]

    clock = Clock()
    settings = {"safe": [0.0], "clock": clock, "worker": Inline}
    pilot, loop = Pilot(artefact, READINGS, **settings), RealTime(artefact, **settings)
    for tick in range(5):
        clock.now += PERIOD
        pilot.hear(["slider", "wheel"], [1.0 - 0.1 * tick, 7.0], [-0.2 * tick, 7.0], clock.now)
        assert pilot.tick() == loop.tick(np.array([1.0 - 0.1 * tick, -0.2 * tick]), clock.now).tolist()
    assert pilot.loop.health.summary()["sources"]["fresh"] == 4
    for heard in ((["wheel"], [1.0], [0.0]), (["slider"], [], []), (["slider"], [np.inf], [0.0])):
        clock.now += PERIOD
        pilot.hear(*heard, clock.now)
        (action,) = pilot.tick()
        assert -1.0 <= action <= 1.0
    assert pilot.loop.health.faults["observation missing"] == 1 and pilot.loop.health.faults["observation not finite"] == 2
    assert (KNOWN["cos"](0.5, 3.0), KNOWN["sin"](0.5, 3.0)) == (np.cos(0.5), np.sin(0.5))
    assert pilot.close() == [0.0] or abs(pilot.close()[0]) <= 1.0
    for wrong, reason in ((["position slider"], "observes 2 numbers"), (["torque a", "position b"], "a reading is one of")):
        with pytest.raises(ValueError, match=reason):
            Pilot(artefact, wrong, **settings)


class StandIn:
    """Stands in for the parts of rclpy that the node uses; a context that is gone publishes nothing."""

    def __init__(self, spin, parameters):
        self.spin_with, self.parameters, self.alive, self.handlers = spin, parameters, False, None
        self.published: list[list[float]] = []

    def init(self, signal_handler_options):
        self.alive, self.handlers = True, signal_handler_options

    def spin(self, node):
        self.spin_with(self, node)

    def try_shutdown(self):
        self.alive = False

    def publish(self, message):
        assert self.alive, "publisher's context is invalid"
        self.published.append(message.data)

    def modules(self):
        stand_in = self

        class Node:
            def __init__(self, name):
                self.context = SimpleNamespace(ok=lambda: stand_in.alive)

            def declare_parameter(self, name, value):
                return SimpleNamespace(value=stand_in.parameters.get(name, value))

            def create_publisher(self, kind, topic, depth):
                return stand_in

            def create_subscription(self, *rest):
                pass

            def create_timer(self, period, call):
                self.timer = call

            def destroy_node(self):
                pass

            def get_clock(self):
                return SimpleNamespace(now=lambda: SimpleNamespace(nanoseconds=time.time_ns()))

        contents = {
            "rclpy": {name: getattr(self, name) for name in ("init", "spin", "try_shutdown")},
            "rclpy.executors": {"ExternalShutdownException": type("ExternalShutdownException", (Exception,), {})},
            "rclpy.node": {"Node": Node},
            "rclpy.qos": {"qos_profile_sensor_data": None},
            "rclpy.signals": {"SignalHandlerOptions": SimpleNamespace(NO="none of rclpy's")},
            "sensor_msgs.msg": {"JointState": None},
            "std_msgs.msg": {"Float64MultiArray": SimpleNamespace},
        }
        return {name: SimpleNamespace(**parts) for name, parts in contents.items()}


def interrupted(rclpy, node):
    node.timer()
    if rclpy.handlers != "none of rclpy's":  # which shut the context down before anybody hears of it
        rclpy.alive = False
    signal.raise_signal(signal.SIGTERM)


def shut_down_by_others(rclpy, node):
    node.timer()
    rclpy.alive = False
    raise sys.modules["rclpy.executors"].ExternalShutdownException


@pytest.mark.parametrize(("spin", "sent"), [(interrupted, 2), (shut_down_by_others, 1)])
def test_the_node_sends_its_last_command_and_writes_its_health_when_it_ends(artefact, tmp_path, monkeypatch, spin, sent):
    health = tmp_path / "health.csv"
    rclpy = StandIn(spin, {"observed": READINGS, "health": str(health)})
    for name, module in rclpy.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "craik_ros.node", raising=False)
    before = signal.getsignal(signal.SIGTERM)
    node = importlib.import_module("craik_ros.node")
    monkeypatch.setattr(node.runtime, "load", lambda path: artefact)
    try:
        node.main()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert len(rclpy.published) == sent and rclpy.published[-1] == [0.0] and not rclpy.alive
    assert len(health.read_text().splitlines()) == 1 + 2  # ticks, the last one at the end


def test_a_joint_state_is_written_as_ros_writes_it():
    pytest.importorskip("cyclonedds", reason="DDS without ROS 2 needs the cyclonedds wheel")
    from craik_ros import wire  # pyright: ignore[reportMissingImports]

    message = wire.JointState(wire.Header(wire.Time(7, 8), "base"), ["a"], [0.5], [-1.0], [])
    expected = b"\x00\x01\x00\x00" + struct.pack("<iI I5s3x", 7, 8, 5, b"base\0")  # CDR, little-endian; strings end with 0
    expected += struct.pack("<I I2s2x", 1, 2, b"a\0")
    expected += struct.pack("<I4xd I4xd I", 1, 0.5, 1, -1.0, 0)  # doubles lie at multiples of 8 behind the first four bytes
    assert message.serialize() == expected
    assert wire.JointState.__idl_typename__.replace(".", "::") == "sensor_msgs::msg::dds_::JointState_"


def test_two_processes_exchange_states_and_commands_over_dds(artefact):
    pytest.importorskip("cyclonedds", reason="DDS without ROS 2 needs the cyclonedds wheel")
    from craik_ros import wire  # pyright: ignore[reportMissingImports]
    from craik_ros.pilot import Pilot  # pyright: ignore[reportMissingImports]

    domain, sent = 77, []
    pilot = Pilot(artefact, READINGS, safe=[0.0], clock=time.time, stale=5.0)
    tick = pilot.tick
    pilot.tick = lambda: sent.append(tick()) or sent[-1]
    exchange = wire.Exchange(pilot, domain)
    robot = subprocess.Popen(
        [sys.executable, "-c", ROBOT, str(domain)], cwd=PACKAGE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        while robot.poll() is None and len(sent) < 3000:
            exchange.run(PERIOD)
        out, err = robot.communicate(timeout=60)
    finally:
        robot.kill()
        pilot.close()
    assert robot.returncode == 0 and out, err
    heard, position = json.loads(out)
    assert len(heard) >= 25 and all(command in sent for command in heard)
    assert min(command[0] for command in heard) < -0.1 and position < 1.0  # back to the middle, as planned
