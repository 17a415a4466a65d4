"""Problems of optimal control from the literature that no planner was tuned on; see `benchmarks.formulas` for their form.

The models and the kinds of tasks are those of the papers in the docstrings; sizes of steps, weights, bounds and obstacles
are ours where no figure is quoted. Costs, states and actions keep the units and scales of their field on purpose.
"""

from benchmarks.formulas import Reference
from benchmarks.literature.driving import lane_change, parking, slalom
from benchmarks.literature.flight import orbit_transfer, powered_descent, quadrotor_3d
from benchmarks.literature.processes import crane, minimum_fuel, rate_limited, reactor, van_der_pol
from benchmarks.literature.robots import acrobot, arm, long_cartpole

LITERATURE: dict[str, Reference] = {
    make.__name__: make()
    for make in (
        slalom,
        minimum_fuel,
        van_der_pol,
        parking,
        reactor,
        rate_limited,
        acrobot,
        long_cartpole,
        quadrotor_3d,
        arm,
        powered_descent,
        lane_change,
        orbit_transfer,
        crane,
    )
}
