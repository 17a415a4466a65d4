"""The node: a subscription, a timer and a publisher around a `Pilot`."""

from typing import Any

import rclpy  # pyright: ignore[reportMissingImports]
from rclpy.node import Node  # pyright: ignore[reportMissingImports]
from rclpy.qos import qos_profile_sensor_data  # pyright: ignore[reportMissingImports]
from sensor_msgs.msg import JointState  # pyright: ignore[reportMissingImports]
from std_msgs.msg import Float64MultiArray  # pyright: ignore[reportMissingImports]

from craik_ros.pilot import Pilot  # pyright: ignore[reportMissingImports]
from mpc.deploy import runtime


class Planner(Node):
    """Plans from `joint_states`, and publishes `commands` as the forward controllers of ros2_control take them.

    Parameters: `artefact`, a path; `observed`, what the observation is made of (see `Pilot`); `safe`, the action that can
    always be sent; `latency`, seconds until an action acts; `health`, where to write what every tick was like, or "".
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
        """Send what is safe, and write the health record down."""
        self._send(self.pilot.close())
        if self._health:
            self.pilot.loop.health.write(self._health)


def main() -> None:
    """Run the node until it is told to stop."""
    rclpy.init()
    node = Planner()
    try:
        rclpy.spin(node)
    except KeyboardInterrupt:
        pass
    finally:
        node.stop()
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
