"""A robot simulated in a separate process: MuJoCo follows the wall clock, independently of the controller.

    with Plant(named("cartpole"), delay=0.02, push=0.5) as plant:
        observation, stamp = plant.newest()
        plant.send(action)                  # takes effect after `delay` seconds
    plant.trace                             # recorded states and actions

Both processes read the same monotonic clock, so their time stamps are comparable.
"""

import multiprocessing
import time
from collections import deque
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np

from envs.robots import Robot, built, mujoco, named

POLL_PERIOD = 0.002  # seconds between two reads of the clock: the maximal age of an observation on an idle machine
PUSH_DURATION = 0.1  # seconds
PUSH_INTERVAL = (2.0, 4.0)  # seconds between two pushes, uniform
TIMEOUT = 60.0  # seconds to wait for the process to start and to end


class Trace(NamedTuple):
    """Recorded trajectory with one row per period.

    `times` `[N]`, seconds since the start; `states` `[N, S]`; `actions` `[N, A]`, as applied; `pushes` `[N]`, in newtons.
    """

    times: np.ndarray
    states: np.ndarray
    actions: np.ndarray
    pushes: np.ndarray


class Plant:
    """Handle of the simulation process: the constructor prepares it, and it runs inside the `with` block.

    Args:
        robot: Robot to simulate.
        delay: Seconds from sending an action until it takes effect.
        push: Force in N of pushes on the body `robot.pushed`, from a random side, 0.1 s long, every 2 to 4 s; 0 for none.
        seed: Seed of the start state and of the pushes.

    Raises:
        ImportError: If MuJoCo is not installed.
        ValueError: If the delay or the push is negative.
        RuntimeError: If the process does not start, or has ended.
    """

    def __init__(self, robot: Robot, *, delay: float = 0.0, push: float = 0.0, seed: int = 0) -> None:
        if delay < 0 or push < 0:
            raise ValueError(f"delay and push must not be negative; got {delay} and {push}")
        mujoco()  # raises a missing import here rather than in the other process
        spawn = multiprocessing.get_context("spawn")
        self._observation = spawn.Array("d", 1 + len(robot.names))
        self._line, end = spawn.Pipe()
        self.trace: Trace | None = None
        self._process = spawn.Process(
            target=_live, args=(robot.name, delay, push, seed, self._observation, end), daemon=True
        )
        self._process.start()
        end.close()
        self._expect("start")

    def __enter__(self) -> "Plant":
        self._line.send("go")
        self._expect("start running")
        return self

    def __exit__(self, *_: Any) -> None:
        try:
            self._line.send(None)
            self.trace = self._expect("end")
        finally:
            self._process.join(TIMEOUT)
            self._process.kill()

    def newest(self) -> tuple[np.ndarray, float]:
        """Returns the newest observation and its time stamp, in seconds of `time.monotonic`."""
        with self._observation.get_lock():
            row = np.array(self._observation.get_obj())
        return row[1:].astype(np.float32), float(row[0])

    def send(self, action: np.ndarray) -> None:
        """Sends an action to the actuators."""
        self._line.send((time.monotonic(), np.asarray(action, float)))

    def _expect(self, what: str) -> Any:
        if not self._line.poll(TIMEOUT):
            raise RuntimeError(f"the robot's process did not {what} within {TIMEOUT:.0f} s")
        try:
            return self._line.recv()
        except EOFError:
            raise RuntimeError(f"the robot's process ended before it could {what}") from None


def _live(name: str, delay: float, push: float, seed: int, observation: Any, line: Connection) -> None:
    """Runs the simulation in the process: waits for the start message, then simulates until the stop message."""
    body = Body(named(name), delay, push, seed)
    line.send("ready")
    line.recv()
    started, running = time.monotonic(), True
    _publish(body, started, observation)
    line.send("begun")
    while running:
        while line.poll():
            message = line.recv()
            if message is None:
                running = False
            else:
                body.receive(message[0] - started, message[1])
        body.advance(time.monotonic() - started)
        _publish(body, started, observation)
        time.sleep(POLL_PERIOD)
    line.send(body.trace())


def _publish(body: "Body", started: float, observation: Any) -> None:
    with observation.get_lock():
        observation.get_obj()[:] = [started + body.data.time, *body.observation()]


class Body:
    """MuJoCo simulation of a robot with actuator delay and pushes; the caller passes the time.

    Args:
        robot: Robot to simulate.
        delay: Seconds from sending an action until it takes effect.
        push: Force in N, as in `Plant`.
        seed: Seed of all random numbers.
    """

    def __init__(self, robot: Robot, delay: float, push: float, seed: int) -> None:
        self._mujoco, self._random = mujoco(), np.random.default_rng(seed)
        drawn = self._random
        self.robot, self._delay, self._push = robot, delay, push
        self.model = built(robot)
        self.data = self._mujoco.MjData(self.model)
        self.data.qpos[:] = robot.start + drawn.uniform(-1.0, 1.0, self.model.nq) * robot.spread
        self._mujoco.mj_forward(self.model, self.data)
        self._pushed = self.model.body(robot.pushed).id
        self._pushing = drawn.uniform(*PUSH_INTERVAL) if push else np.inf
        self._force = push * drawn.choice([-1.0, 1.0])
        self._waiting: deque[tuple[float, np.ndarray]] = deque()
        self._rows: list[np.ndarray] = []

    def receive(self, sent: float, action: np.ndarray) -> None:
        """Queues an action that was sent at a given time."""
        self._waiting.append((sent + self._delay, action))

    def advance(self, until: float) -> None:
        """Simulates until a time in seconds since the start, and never beyond it, so no observation lies in the future."""
        data, force = self.data, self.data.xfrc_applied[self._pushed]
        last = until - self.model.opt.timestep + 1e-9  # latest start of a step
        while data.time <= last:
            while self._waiting and self._waiting[0][0] <= data.time:
                data.ctrl[:] = self._waiting.popleft()[1]
            force[0] = self._force if 0 <= data.time - self._pushing < PUSH_DURATION else 0.0
            if data.time >= self._pushing + PUSH_DURATION:
                self._pushing = data.time + self._random.uniform(*PUSH_INTERVAL)
                self._force = self._push * self._random.choice([-1.0, 1.0])
            if data.time >= len(self._rows) * self.robot.period - 1e-9:
                self._rows.append(np.concatenate([[data.time], data.qpos, data.qvel, data.ctrl, force[:1]]))
            self._mujoco.mj_step(self.model, data)

    def observation(self) -> np.ndarray:
        """Returns the current observation."""
        return self.robot.observe(self.data.qpos, self.data.qvel)

    def trace(self) -> Trace:
        """Returns the trajectory up to now."""
        size = self.model.nq + self.model.nv
        rows = np.array(self._rows).reshape(len(self._rows), 2 + size + self.model.nu)
        return Trace(rows[:, 0], rows[:, 1 : 1 + size], rows[:, 1 + size : -1], rows[:, -1])
