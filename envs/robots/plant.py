"""A robot in a process of its own: MuJoCo steps it by the wall clock, whatever its controller does or fails to do.

    with Plant(named("cartpole"), delay=0.02, push=0.5) as plant:
        observation, stamp = plant.newest()
        plant.send(action)                  # acts `delay` seconds from now
    plant.trace                             # what happened

Both processes read the same monotonic clock, so that time stamps mean the same to either.
"""

import multiprocessing
import time
from collections import deque
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np

from envs.robots import Robot, built, mujoco, named

WAKE = 0.002  # seconds between two looks at the clock: the age of an observation at most, where the machine is not busy
PUSH = 0.1  # seconds that a push lasts
BETWEEN = (2.0, 4.0)  # seconds between two pushes
PATIENCE = 60.0  # seconds to wait for the process to begin, and to end


class Trace(NamedTuple):
    """What happened, once a period: N times in seconds, positions and velocities, forces, and pushes.

    `times` `[N]`, from the beginning; `states` `[N, S]`; `actions` `[N, A]`, as they acted; `pushes` `[N]`, in N.
    """

    times: np.ndarray
    states: np.ndarray
    actions: np.ndarray
    pushes: np.ndarray


class Plant:
    """The process, from `with` on to its end; made ready before `with` is entered.

    Args:
        robot: Which.
        delay: Seconds from sending an action until it acts.
        push: N, of the pushes to its `pushed` body, from either side, a tenth of a second every 2 to 4; 0 for none.
        seed: Of where it begins, and of the pushes.

    Raises:
        ImportError: If MuJoCo is missing.
        ValueError: If the delay or the push is negative.
        RuntimeError: If the process does not begin, or has ended.
    """

    def __init__(self, robot: Robot, *, delay: float = 0.0, push: float = 0.0, seed: int = 0):
        if delay < 0 or push < 0:
            raise ValueError(f"delay and push must not be negative; got {delay} and {push}")
        mujoco()  # says what is missing here, and not in another process
        spawn = multiprocessing.get_context("spawn")
        self._seen = spawn.Array("d", 1 + len(robot.names))
        self._line, end = spawn.Pipe()
        self.trace: Trace | None = None
        self._process = spawn.Process(target=_live, args=(robot.name, delay, push, seed, self._seen, end), daemon=True)
        self._process.start()
        end.close()
        self._expect("begin")

    def __enter__(self) -> "Plant":
        self._line.send("go")
        self._expect("go on")
        return self

    def __exit__(self, *_: Any) -> None:
        try:
            self._line.send(None)
            self.trace = self._expect("end")
        finally:
            self._process.join(PATIENCE)
            self._process.kill()

    def newest(self) -> tuple[np.ndarray, float]:
        """The newest observation, and when it was made, in seconds of `time.monotonic`."""
        with self._seen.get_lock():
            seen = np.array(self._seen.get_obj())
        return seen[1:].astype(np.float32), float(seen[0])

    def send(self, action: np.ndarray) -> None:
        """Send an action to the actuators."""
        self._line.send((time.monotonic(), np.asarray(action, float)))

    def _expect(self, what: str) -> Any:
        if not self._line.poll(PATIENCE):
            raise RuntimeError(f"the robot's process did not {what} within {PATIENCE:.0f} s")
        try:
            return self._line.recv()
        except EOFError:
            raise RuntimeError(f"the robot's process ended before it could {what}") from None


def _live(name: str, delay: float, push: float, seed: int, seen: Any, line: Connection) -> None:
    """The process: be ready, begin when told, go on until told."""
    body = Body(named(name), delay, push, seed)
    line.send("ready")
    line.recv()
    begun, going_on = time.monotonic(), True
    _show(body, begun, seen)
    line.send("begun")
    while going_on:
        while line.poll():
            message = line.recv()
            if message is None:
                going_on = False
            else:
                body.receive(message[0] - begun, message[1])
        body.advance(time.monotonic() - begun)
        _show(body, begun, seen)
        time.sleep(WAKE)
    line.send(body.trace())


def _show(body: "Body", begun: float, seen: Any) -> None:
    with seen.get_lock():
        seen.get_obj()[:] = [begun + body.data.time, *body.observation()]


class Body:
    """The robot in MuJoCo, with the delay of its actuators and what pushes it; time is what it is told.

    Args:
        robot: Which.
        delay: Seconds from sending an action until it acts.
        push: N, as `Plant` takes it.
        seed: Of everything random.
    """

    def __init__(self, robot: Robot, delay: float, push: float, seed: int):
        self._mujoco, self._drawn = mujoco(), np.random.default_rng(seed)
        drawn = self._drawn
        self.robot, self._delay, self._push = robot, delay, push
        self.model = built(robot)
        self.data = self._mujoco.MjData(self.model)
        self.data.qpos[:] = robot.start + drawn.uniform(-1.0, 1.0, self.model.nq) * robot.spread
        self._mujoco.mj_forward(self.model, self.data)
        self._pushed = self.model.body(robot.pushed).id
        self._pushing = drawn.uniform(*BETWEEN) if push else np.inf
        self._force = push * drawn.choice([-1.0, 1.0])
        self._waiting: deque[tuple[float, np.ndarray]] = deque()
        self._rows: list[np.ndarray] = []

    def receive(self, sent: float, action: np.ndarray) -> None:
        """Take an action that was sent at a time."""
        self._waiting.append((sent + self._delay, action))

    def advance(self, until: float) -> None:
        """Go on until a time, in seconds from the beginning, and never past it: nothing is seen before it happened."""
        data, force = self.data, self.data.xfrc_applied[self._pushed]
        last = until - self.model.opt.timestep + 1e-9  # the latest that a step may begin
        while data.time <= last:
            while self._waiting and self._waiting[0][0] <= data.time:
                data.ctrl[:] = self._waiting.popleft()[1]
            force[0] = self._force if 0 <= data.time - self._pushing < PUSH else 0.0
            if data.time >= self._pushing + PUSH:
                self._pushing = data.time + self._drawn.uniform(*BETWEEN)
                self._force = self._push * self._drawn.choice([-1.0, 1.0])
            if data.time >= len(self._rows) * self.robot.period - 1e-9:
                self._rows.append(np.concatenate([[data.time], data.qpos, data.qvel, data.ctrl, force[:1]]))
            self._mujoco.mj_step(self.model, data)

    def observation(self) -> np.ndarray:
        """What its sensors show."""
        return self.robot.observe(self.data.qpos, self.data.qvel)

    def trace(self) -> Trace:
        """What happened until now."""
        size = self.model.nq + self.model.nv
        rows = np.array(self._rows).reshape(len(self._rows), 2 + size + self.model.nu)
        return Trace(rows[:, 0], rows[:, 1 : 1 + size], rows[:, 1 + size : -1], rows[:, -1])
