"""ROS 2 node: a subscription, a timer and a publisher around a `Pilot`."""

import signal
from typing import Any

import rclpy  # pyright: ignore[reportMissingImports]
from rclpy.executors import ExternalShutdownException  # pyright: ignore[reportMissingImports]
from rclpy.node import Node  # pyright: ignore[reportMissingImports]
from rclpy.qos import qos_profile_sensor_data  # pyright: ignore[reportMissingImports]
from rclpy.signals import SignalHandlerOptions  # pyright: ignore[reportMissingImports]
from sensor_msgs.msg import JointState  # pyright: ignore[reportMissingImports]
from std_msgs.msg import Float64MultiArray  # pyright: ignore[reportMissingImports]

from craik_ros.pilot import Pilot  # pyright: ignore[reportMissingImports]
from mpc.deploy import runtime


class Planner(Node):
    """Node that plans from `joint_states` and publishes `commands` for the forward controllers of ros2_control.

    Parameters: `artefact`, path of the exported planner; `observed`, elements of the observation (see `Pilot`); `safe`, a
    safe action; `latency`, seconds until an action takes effect; `health`, path of the health record, or "".
    """

    def __init__(self):
        super().__init__("craik_planner")
        defaults: dict[str, Any] = {
            "artefact": "planner.craik",
            "observed": [""],
            "safe": [0.0],
            "latency": 0.0,
            "health": "",
        }
        given = {name: self.declare_parameter(name, value).value for name, value in defaults.items()}
        artefact = runtime.load(given["artefact"])
        self._health = given["health"]
        self.pilot = Pilot(artefact, given["observed"], safe=given["safe"], clock=self._now, latency=given["latency"])
        self._commands = self.create_publisher(Float64MultiArray, "commands", 1)
        self.create_subscription(JointState, "joint_states", self._hear, qos_profile_sensor_data)
        self.create_timer(self.pilot.loop.period, lambda: self._send(self.pilot.tick()))

    def _now(self) -> float:
        return self.get_clock().now().nanoseconds * 1e-9

    def _hear(self, message: JointState) -> None:
        stamp = message.header.stamp.sec + 1e-9 * message.header.stamp.nanosec
        self.pilot.hear(message.name, message.position, message.velocity, stamp)

    def _send(self, command: list[float]) -> None:
        self._commands.publish(Float64MultiArray(data=command))

    def stop(self) -> None:
        """Sends the safe action while there is somebody to send it, and writes the health record in any case."""
        command = self.pilot.close()
        try:
            if self.context.ok():
                self._send(command)
        finally:
            if self._health:
                self.pilot.loop.health.write(self._health)


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """Runs the node until it is interrupted.

    The signal handlers of rclpy shut its context down before anybody else hears of the signal, and then nothing can be
    published any more. Python's own let the node send its last command first.
    """
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    signal.signal(signal.SIGTERM, _interrupt)
    node = Planner()
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        try:
            node.stop()
        finally:
            node.destroy_node()
            rclpy.try_shutdown()


if __name__ == "__main__":
    main()
